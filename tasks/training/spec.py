"""What a training is: everything that decides its outcome, in one file that every step reads."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.configs import NEW, OF_THE_STUDENT, DiscriminatorConfig, OptimisationConfig, StudentConfig
from models.methods import MethodConfig
from models.revision import model_revision
from storage.ids import content_id
from storage.store import Store
from storage.votes import VoteRule
from tasks.questions.sets import DatasetConfig, QuestionSet
from tasks.serving.settings import Writes

INITIAL = -1
"""The "round" of the student as it was before training."""

# What makes a training faster or safer but not another one.
_NO_PART_OF_THE_ID = {
    "negatives": {"batch_size"},
    "optimisation": {"device", "micro_batch_size", "checkpoint_every_s", "log_every"},
    "rounds": {"evaluation_batch", "processes", "threads", "keep"},
}


class NegativesConfig(BaseModel):
    """The negatives that a student makes itself (docs/distillation.md).

    Parameters that control which student:
        lag: rounds back. Round t's negatives come from the student that round t - lag ended with (5, paper), before
            there is one from the student as it was before training. `fixed` always takes the latter, `none` makes none.

    Parameters that control the sampling:
        temperature: 1.5 (paper).
        top_p: probability mass sampled from.
        max_tokens: longest one; None takes the student's longest target.
        batch_size: texts at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lag: Annotated[int, Field(ge=1)] | Literal["fixed", "none"] = Field(default=5)
    temperature: float = Field(default=1.5, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=256, ge=1)

    def round_before(self, t: int) -> int | None:
        """The round whose student makes the negatives of round t, INITIAL for the one before training; None for
        none."""
        if self.lag == "none":
            return None
        return INITIAL if self.lag == "fixed" else max(INITIAL, t - self.lag)


class RoundsConfig(BaseModel):
    """How many rounds, and what is kept of them.

    Parameters that control the length:
        rounds: at most so many.
        epochs_per_round: times each question is trained on in a round.
        patience: the training ends when so many rounds in a row are no better on validation; None runs all.

    Parameters that control the evaluation:
        answer_tokens: longest answer, in tokens.
        explain_validation: also let the student explain the validation questions in every round (the test questions
            always).
        evaluation_batch: questions at once.

    Parameters that control the machine:
        processes: training processes, one a GPU (torchrun); on a CPU more than one is for tests.
        threads: of torch's on a CPU; None leaves it to torch.
        keep: checkpoints of so many of the newest rounds are kept besides the best round's and those that `lag` still
            needs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rounds: int = Field(default=20, ge=1)
    epochs_per_round: int = Field(default=1, ge=1)
    patience: int | None = Field(default=None, ge=1)
    answer_tokens: int = Field(default=16, ge=1)
    explain_validation: bool = True
    evaluation_batch: int = Field(default=128, ge=1)
    processes: int = Field(default=1, ge=1)
    threads: int | None = Field(default=None, ge=1)
    keep: int = Field(default=1, ge=1)


class TrainingConfig(BaseModel):
    """The part of a configuration that one training is made of; `distill` may run several on the same data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    student: StudentConfig
    method: MethodConfig = MethodConfig()
    negatives: NegativesConfig = NegativesConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    optimisation: OptimisationConfig = OptimisationConfig()
    rounds: RoundsConfig = RoundsConfig()


@dataclass(frozen=True)
class Parts:
    """Which questions are for what."""

    train: QuestionSet
    validation: QuestionSet
    test: QuestionSet | None

    @classmethod
    def of(cls, config: DatasetConfig, dataset: str) -> "Parts":
        """The parts of a configured dataset, whose stored name is `dataset`."""
        sets = {part: config.question_set(dataset, part) for part in config.splits()}
        return cls(sets["train"], sets["validation"], sets.get("test"))


class TrainingSpec(BaseModel):
    """A training that has been prepared: its configuration, its data, and where it lies.

    Attributes:
        training_id: content id of all that decides the outcome.
        dataset: as the configuration names it; a path for a YAML definition.
        store: root of the rationale store.
        rule: the votes.
        train, validation, test: which questions.
        data_digest: content id of the training set.
        test_digest: of the test questions; they decide nothing, so the training id is the same for others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    training_id: str
    dataset: str
    store: str
    rule: VoteRule
    train: QuestionSet
    validation: QuestionSet
    test: QuestionSet | None
    data_digest: str
    test_digest: str | None = None
    config: TrainingConfig

    @property
    def name(self) -> str:
        """What the student is called in the store's `model` columns; with "@round" for the one of a round."""
        return f"{self.train.dataset}-{self.config.method.name}-{self.training_id}"

    def student_name(self, round_: int) -> str:
        """The student that a round ended with."""
        return f"{self.name}@{'initial' if round_ == INITIAL else round_}"

    def open_store(self) -> Store:
        """The store."""
        return Store(self.store)


def training_id(config: TrainingConfig, data_digest: str, validation_digest: str) -> str:
    """The content id of a training: equal configuration and data, equal id, wherever its models lie.

    Args:
        config: with a definite precision. What changes only speed or safety does not count, nor does what its method
            has no use for.
        data_digest: of the training set.
        validation_digest: of the validation questions, which choose the best round.
    """
    content: dict[str, Any] = config.model_dump(mode="json")
    for section, names in _NO_PART_OF_THE_ID.items():
        content[section] = {name: value for name, value in content[section].items() if name not in names}
    content["method"] = config.method.in_use()
    if not config.method.uses_negatives:
        del content["negatives"]
    if not config.method.uses_discriminator:
        del content["discriminator"]
    for section, name in (("student", "model"), ("student", "tokenizer"), ("discriminator", "encoder")):
        value = content.get(section, {}).get(name)
        if value not in (None, NEW, OF_THE_STUDENT):
            content[section][name] = model_revision(value) or value
    return content_id("training", content, data_digest, validation_digest)


def writes(method: MethodConfig) -> Writes:
    """What a student of a method was trained to write."""
    if method.one_target:
        return "rationale, then answer"
    return "answer" if method.rationales == "none" else "answer and rationale"
