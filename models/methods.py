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
    """A method and its weights; the defaults are the paper's (docs/distillation.md).

    Parameters that control which method it is:
        name: finetune, label-distill, single-task, dss, mi or qcrd.
        labels: the student's answer target: `gold`, or `teacher` for the majority answer (distillation with no human
            labels, paper Table 3). label-distill always takes the teacher's.

    Parameters that switch off parts of qcrd (its ablations):
        voting: enriched sampling and self-consistency (the paper's ED). Off: the first sample alone, as in dss.
        negatives: contrast with bad rationales (NK). Off: positives only.
        discriminator: quality scores as weights (QJ). Off: every positive counts 1, every negative in full.

    Parameters that control the loss:
        label_weight, rationale_weight: a1 and a2 of eq. 8 (0.5 each, paper); of no effect where a method has one task.
        discriminator_weight, discriminator_decay: a3 in round t is weight * decay^t (0.5 and 0.9, paper).
        beta: weight of the negatives in eq. 3 (0.2, paper).
        delta: margin in nats per token (3, paper); a negative with a larger cross-entropy repels no more.
        scheme: which of many positives and negatives count: min-max (paper), max-min, mean, sample, weighted-mean.
        refresh_every: the chosen pair of an example is chosen anew at every so many of its visits and kept in
            between; 1 chooses always (paper). Larger values save the forward passes that choosing takes.
        mi_weight: of the mutual-information term of `mi` (0.1, Chen et al. 2024).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: MethodName = "qcrd"
    labels: Literal["gold", "teacher"] = "gold"
    voting: bool = True
    negatives: bool = True
    discriminator: bool = True
    label_weight: float = Field(default=0.5, ge=0)
    rationale_weight: float = Field(default=0.5, ge=0)
    discriminator_weight: float = Field(default=0.5, gt=0)
    discriminator_decay: float = Field(default=0.9, gt=0, le=1)
    beta: float = Field(default=0.2, ge=0)
    delta: float = Field(default=3.0, gt=0)
    scheme: Scheme = "min-max"
    refresh_every: int = Field(default=1, ge=1)
    mi_weight: float = Field(default=0.1, ge=0)

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
        """The settings that have an effect on this method, so that two that do the same compare equal."""
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
