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

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MethodName = Literal["finetune", "label-distill", "single-task", "dss", "mi", "qcrd"]
Rationales = Literal["none", "first", "voted"]
Scheme = Literal["min-max", "max-min", "mean", "sample", "weighted-mean"]
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
    beta: float = Field(default=0.2, ge=0, description="Weight of the negatives in eq. 3 (paper: 0.2).")
    delta: float = Field(
        default=3.0,
        gt=0,
        description="Margin in nats per token (paper: 3); a negative with a larger cross-entropy no longer repels.",
    )
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
    mi_weight: float = Field(
        default=0.1, ge=0, description="Weight of the mutual-information term of `mi` (Chen et al. 2024: 0.1)."
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
    def uses_discriminator(self) -> bool:
        """Whether quality scores weigh the rationales."""
        return self.name == "qcrd" and self.discriminator

    @property
    def answer_source(self) -> Literal["gold", "teacher"]:
        """Where the student's answer target comes from."""
        return "teacher" if self.name == "label-distill" else self.labels

    @property
    def one_target(self) -> bool:
        """Whether rationale and answer are one text, and the student explains before it answers."""
        return self.name == "single-task"

    @property
    def weights(self) -> tuple[float, float]:
        """(a1, a2) of eq. 8; a method with one task gives it the whole weight."""
        if self.rationales == "none":
            return 1.0, 0.0
        return (0.0, 1.0) if self.one_target else (self.label_weight, self.rationale_weight)

    def in_use(self) -> dict[str, Any]:
        """The settings that affect this method, so that two equivalent configurations compare equal."""
        idle: set[str] = set()
        if self.name == "label-distill":
            idle |= {"labels"}
        if self.rationales == "none" or self.one_target:
            idle |= {"label_weight", "rationale_weight"}
        if self.name != "qcrd":
            idle |= {"voting", "negatives", "discriminator", "scheme", "refresh_every"}
        if not self.uses_negatives:
            idle |= {"beta", "delta"}
        if not self.uses_discriminator:
            idle |= {"discriminator_weight", "discriminator_decay"}
        if self.name != "mi":
            idle |= {"mi_weight"}
        return self.model_dump(mode="json", exclude=idle)
