"""The methods that one trainer runs: QCRD, its ablations and the baselines (docs/distillation.md).

They differ in four things only: what the student's answer target is, which rationales are positives, whether there are
negatives, and whether a discriminator weighs them.

| method        | answer target | positives                | negatives | quality |
|---------------|---------------|--------------------------|-----------|---------|
| finetune      | gold          | none                     | no        | no      |
| label-distill | winner        | none                     | no        | no      |
| single-task   | in the rationale's own text | the first sample | no  | no      |
| dss           | gold          | the first sample         | no        | no      |
| mi            | gold          | the first sample         | no        | no      |
| qcrd          | gold          | all that won the vote    | yes       | yes     |
"""

import math
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MethodName = Literal["finetune", "label-distill", "single-task", "dss", "mi", "qcrd"]
Rationales = Literal["none", "first", "voted"]
Scheme = Literal["min-max", "max-min", "mean", "sample", "weighted-mean"]
Contrast = Literal["margin", "relative", "divergence", "asymmetric", "none"]
READS_CE: frozenset[Scheme] = frozenset({"min-max", "max-min"})
"""Schemes that must know every candidate's CE before choosing."""


class MethodConfig(BaseModel):
    """A method, and the weights of its losses; the defaults are the paper's (docs/distillation.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # The method
    name: MethodName = Field(default="qcrd", description="`qcrd`, or a baseline.")
    labels: Literal["gold", "teacher"] = Field(
        default="gold",
        description="The student's answer target: the label (`gold`), or the majority answer (`teacher`), which needs "
        "no human labels (paper, Table 3). `label-distill` always takes the teacher's.",
    )

    targets: Literal["apart", "answer-first"] = Field(
        default="apart",
        description="How `dss` and `qcrd` train answer and rationale: `apart`, under a prefix each (paper), or "
        "`answer-first`, in one text, of which only the answer need be written: one pass less. A teacher's bad "
        "rationale then follows the right answer, so that only the rationale is at fault.",
    )
    answer_share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="With `targets: answer-first`: share of the answer in a text's loss, the mean over its tokens "
        "against the mean over the rationale's. By default every token weighs the same, so that a long rationale "
        "leaves little to the answer.",
    )
    abstain_below: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Trains refusal (R-Tuning, arXiv 2311.09677): where the teacher's majority has a smaller share of "
        "the votes than this, the answer target is `I do not know`. By default every question keeps its answer.",
    )

    # Parts of qcrd that can be switched off (ablations)
    voting: bool = Field(
        default=True,
        description="Several samples per question, and self-consistency (the paper's ED). Off: the first sample alone, "
        "as in `dss`.",
    )
    negatives: bool = Field(default=True, description="Contrast with bad rationales (NK). Off: positives only.")
    discriminator: bool = Field(
        default=True,
        description="Quality scores as weights (QJ). Off: every positive weighs 1, every negative counts in full.",
    )

    # The loss
    label_weight: float = Field(
        default=0.5,
        ge=0,
        description="Weight of the label's loss, a1 of eq. 8 (paper: 0.5); without effect where a method has one task.",
    )
    rationale_weight: float = Field(
        default=0.5,
        ge=0,
        description="Weight of the rationale's loss, a2 of eq. 8 (paper: 0.5); without effect where a method has one "
        "task.",
    )
    discriminator_weight: float = Field(
        default=0.5, gt=0, description="Weight of the discriminator's loss in round 0, a3 of eq. 8 (paper: 0.5)."
    )
    discriminator_decay: float = Field(
        default=0.9, gt=0, le=1, description="Factor by which a3 shrinks with every round (paper: 0.9)."
    )
    quality: Literal["score", "relative", "rank"] = Field(
        default="score",
        description="How D's scores weigh rationales: `score` as they are (paper); `relative`, divided by their mean "
        "over the question's positives (its negatives), or `rank`, by their order alone. The weights of the last two "
        "have a mean of 1, so a discriminator that cannot tell rationales apart changes nothing.",
    )
    mi_weight: float = Field(
        default=0.1, ge=0, description="Weight of the mutual-information term of `mi` (Chen et al. 2024: 0.1)."
    )
    quality_by: Literal["discriminator", "judge"] = Field(
        default="discriminator",
        description="Who scores rationales: the discriminator (paper), or the student itself, by its task `judge: ` as "
        "it is when a round begins, which needs a `judge_weight`.",
    )

    # The contrast
    contrast: Contrast = Field(
        default="margin",
        description="How negatives repel: `margin` (paper, eq. 7), `relative` (a positive must be likelier than a "
        "negative), `divergence` (unlikelihood of what follows a negative's first token that no positive shares), "
        "`asymmetric` (their log-probability, without a margin), or `none` (they do not; see `wrong_weight` and "
        "`judge_weight`).",
    )
    beta: float = Field(default=0.2, ge=0, description="Weight of the negatives in eq. 3 (paper: 0.2).")
    delta: float = Field(
        default=3.0,
        gt=0,
        description="Margin in nats per token (paper: 3); a negative with a larger cross-entropy no longer repels. "
        "For `margin`.",
    )
    within: Literal["all", "source"] = Field(
        default="all",
        description="Among which negatives a scheme chooses: `all` of a question at once (paper), or the teacher's and "
        "the student's own by themselves, so that one of either kind repels. For `margin`.",
    )
    gap: float = Field(
        default=0.0, ge=0, description="Nats by which a positive should be likelier than a negative. For `relative`."
    )
    sharpness: float = Field(
        default=0.1, gt=0, description="Steepness per nat of the preference's softplus, DPO's beta. For `relative`."
    )
    fading: float = Field(
        default=0.6,
        gt=0,
        le=1,
        description="Factor by which a token weighs less than the one before it, from the first that no positive "
        "shares. For `divergence`.",
    )
    contrast_from: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of all rounds that pass before negatives repel; until then only positives count.",
    )
    contrast_ramp: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of all rounds over which the negatives' weight rises to `beta`; 0 is at once.",
    )

    # Bad rationales as data
    wrong_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of a bad rationale as a target, under the prefix `explain wrong: `: bad rationales as "
        "data, which cannot make a student worse at writing. For `qcrd`.",
    )
    judge_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the task `judge: `, question and rationale in, `right` or `wrong` out. For `qcrd`.",
    )

    # The choice of rationales
    scheme: Scheme = Field(
        default="min-max",
        description="Which of several positives and negatives count: `min-max` (paper), `max-min`, `mean`, `sample` or "
        "`weighted-mean`.",
    )
    refresh_every: int = Field(
        default=1,
        ge=1,
        description="Visits of a question after which its pair is chosen anew; 1 chooses at every visit (paper). "
        "Larger values save the forward passes that choosing takes.",
    )

    @model_validator(mode="after")
    def _switches_are_for_qcrd(self) -> Self:
        switched = [name for name in ("voting", "negatives", "discriminator") if not getattr(self, name)]
        if switched and self.name != "qcrd":
            raise ValueError(f"{' and '.join(switched)} can be switched off for qcrd only, not for {self.name}")
        if self.refresh_every > 1 and self.scheme not in READS_CE:
            raise ValueError(
                f"refresh_every is for schemes that choose one pair ({', '.join(sorted(READS_CE))}), "
                f"not for {self.scheme}; leave it at 1"
            )
        if self.name != "qcrd" and (self.wrong_weight or self.judge_weight):
            raise ValueError(f"wrong_weight and judge_weight are for qcrd, which knows bad rationales, not {self.name}")
        if self.targets == "answer-first" and self.name not in ("dss", "qcrd"):
            raise ValueError(f"targets: answer-first is for dss and qcrd, not for {self.name}")
        if self.answer_share is not None and (self.targets != "answer-first" or self._repels):
            raise ValueError("answer_share is for targets: answer-first where no negative repels")
        if self.abstain_below is not None and not (self.one_target or self.weights[0]):
            raise ValueError("abstain_below is taught as an answer, and label_weight is 0")
        if self.quality_by == "judge" and not self.judge_weight:
            raise ValueError("quality_by: judge needs a judge_weight above 0, or the student never learns to judge")
        return self

    @property
    def rationales(self) -> Rationales:
        """Which rationales are positives."""
        if self.name in ("finetune", "label-distill"):
            return "none"
        return "voted" if self.name == "qcrd" and self.voting else "first"

    @property
    def uses_negatives(self) -> bool:
        """Whether bad rationales are pushed away."""
        return self.name == "qcrd" and self.negatives

    @property
    def _repels(self) -> bool:
        return self.uses_negatives and self.contrast != "none"

    @property
    def uses_discriminator(self) -> bool:
        """Whether quality scores weigh the rationales."""
        return self.name == "qcrd" and self.discriminator

    @property
    def quality_source(self) -> Literal["discriminator", "judge"] | None:
        """Who scores rationales; None for nobody."""
        return self.quality_by if self.uses_discriminator else None

    @property
    def answer_source(self) -> Literal["gold", "teacher"]:
        """Where the student's answer target comes from."""
        return "teacher" if self.name == "label-distill" else self.labels

    @property
    def one_target(self) -> bool:
        """Whether rationale and answer are one text."""
        return self.name == "single-task" or self.targets == "answer-first"

    @property
    def weights(self) -> tuple[float, float]:
        """(a1, a2) of eq. 8; a method with one task gives it the whole weight."""
        if self.rationales == "none":
            return 1.0, 0.0
        return (0.0, 1.0) if self.one_target else (self.label_weight, self.rationale_weight)

    def in_round(self, t: int, rounds: int) -> "MethodConfig":
        """The method as it is in round t of `rounds`, by `contrast_from` and `contrast_ramp`."""
        if not self.uses_negatives:
            return self
        first = math.ceil(self.contrast_from * rounds)
        if t < first:
            return self.model_copy(update={"negatives": False})
        share = min(1.0, (t - first + 1) / max(1.0, self.contrast_ramp * rounds))
        return self.model_copy(update={"beta": self.beta * share})

    def in_use(self) -> dict[str, Any]:
        """The settings that affect this method, so that two equivalent configurations compare equal."""
        idle: set[str] = set()
        if self.name == "label-distill":
            idle |= {"labels"}
        if self.rationales == "none" or self.one_target:
            idle |= {"label_weight", "rationale_weight"}
        if self.name not in ("dss", "qcrd"):
            idle |= {"targets"}
        idle |= {name for name in ("answer_share", "abstain_below") if getattr(self, name) is None}
        if self.name != "qcrd":
            idle |= {"voting", "negatives", "discriminator", "scheme", "refresh_every", "wrong_weight", "judge_weight"}
        if not self.uses_negatives:
            idle |= {"contrast"}
        if not self._repels:
            idle |= {"beta", "contrast_from", "contrast_ramp"}
        of_a_contrast = {"margin": {"delta", "within"}, "relative": {"gap", "sharpness"}, "divergence": {"fading"}}
        for contrast, settings in of_a_contrast.items():
            if not self.uses_negatives or contrast != self.contrast:
                idle |= settings
        if not self.uses_discriminator:
            idle |= {"discriminator_weight", "discriminator_decay", "quality", "quality_by"}
        if self.quality_source == "judge":
            idle |= {"discriminator_weight", "discriminator_decay"}
        if self.name != "mi":
            idle |= {"mi_weight"}
        return self.model_dump(mode="json", exclude=idle)
