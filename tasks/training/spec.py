"""What a training is: everything that decides its outcome, in one file that every step reads."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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

# Settings that make a training faster or safer, but not another one.
_NO_PART_OF_THE_ID = {
    "negatives": {"batch_size"},
    "optimisation": {"device", "micro_batch_size", "checkpoint_every_s", "log_every"},
    "rounds": {"evaluation_batch", "processes", "nodes", "nodes_on", "rendezvous", "threads", "keep"},
}


class NegativesConfig(BaseModel):
    """The negatives that the student samples itself (docs/distillation.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Which student
    lag: Annotated[int, Field(ge=1)] | Literal["fixed", "none"] = Field(
        default=5,
        description="Whose negatives round t gets: those of the student that round t - lag ended with (paper: 5), or, "
        "while there is none, of the student before training. 1 is the student as it is when the round begins; `fixed` "
        "always takes the one before training; `none` makes no negatives.",
    )

    # The sampling
    temperature: float = Field(default=1.5, gt=0, description="Sampling temperature (paper: 1.5).")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Probability mass to sample from; 1 is all of it.")
    top_k: int | None = Field(
        default=50,
        ge=1,
        description="Most likely tokens to sample from; null is all. The paper names none; 50 is what transformers' "
        "`generate` takes unless told otherwise. Without it texts at temperature 1.5 are noise that no margin reaches.",
    )
    keep: Literal["all", "wrong"] = Field(
        default="all",
        description="Which of them are used: `all` (paper), or `wrong`, those whose own answer is not the right one.",
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="Longest negative, in tokens; null takes the student's longest target."
    )
    batch_size: int = Field(default=256, ge=1, description="Texts sampled at once.")

    def round_before(self, t: int) -> int | None:
        """The round whose student makes the negatives of round t: INITIAL before training, None for no negatives."""
        if self.lag == "none":
            return None
        return INITIAL if self.lag == "fixed" else max(INITIAL, t - self.lag)


class OwnSamplesConfig(BaseModel):
    """The student's own rationales, sampled coolly and judged by their answers (docs/distillation.md); not the
    paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int = Field(
        default=0,
        ge=0,
        description="Rationales for each question, sampled in every round but the first from the student as it is when "
        "the round begins; 0 makes none. For `qcrd`, and not where answers are sets of labels.",
    )
    temperature: float = Field(default=0.9, gt=0, description="Sampling temperature.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Probability mass to sample from; 1 is all of it.")
    top_k: int | None = Field(default=None, ge=1, description="Most likely tokens to sample from; null is all.")
    use: Literal["both", "right", "wrong"] = Field(
        default="both",
        description="Those whose own answer is the answer target become positives (`right`), those with another answer "
        "negatives (`wrong`), or `both`. Texts without a readable answer are never used.",
    )
    check_arithmetic: bool = Field(
        default=False,
        description="Whether a right one must have right arithmetic, too, to become a positive; one that has not is "
        "never used.",
    )
    least_right: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Share of a round's samples that must be right before any of them is used: an early student's "
        "texts teach it nothing.",
    )


class RoundsConfig(BaseModel):
    """How many rounds there are, and what is kept of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # The length
    rounds: int = Field(default=20, ge=1, description="Number of rounds, unless `patience` ends the training earlier.")
    epochs_per_round: int = Field(default=1, ge=1, description="Times that each question is trained on in a round.")
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Stop after this many rounds in a row that are no better on validation; null trains all rounds.",
    )

    # The evaluation
    answer_tokens: int = Field(default=16, ge=1, description="Longest answer, in tokens.")
    explain_validation: bool = Field(
        default=True,
        description="Let the student explain the validation questions, too, not only answer them; it always explains "
        "the test questions.",
    )
    evaluation_batch: int = Field(default=128, ge=1, description="Questions answered at once.")

    # The machine
    processes: int = Field(
        default=1,
        ge=1,
        description="Training processes on each node, one per GPU (torchrun); on a CPU, more than one is for tests.",
    )
    nodes: int = Field(
        default=1,
        ge=1,
        description="Machines that train together: the one that does the round, and others that run "
        "`python -m tasks.training.nodes` (docs/deployment.md).",
    )
    nodes_on: str | None = Field(
        default=None,
        description="Deployment of the flow `train-node` that starts the other nodes (deploy/nodes.yaml); null leaves "
        "that to you.",
    )
    rendezvous: str | None = Field(
        default=None,
        pattern=r"^[^\s:/]+:\d+$",
        description="Where the nodes meet: HOST:PORT, an address of the machine that does the round and a free port.",
    )
    threads: int | None = Field(
        default=None, ge=1, description="Torch's threads on a CPU; null leaves the number to torch."
    )
    keep: int = Field(
        default=1,
        ge=1,
        description="How many of the newest rounds keep their checkpoints, besides the best round and those that "
        "`negatives.lag` still needs.",
    )

    @model_validator(mode="after")
    def _nodes_meet(self) -> Self:
        if self.nodes > 1 and self.rendezvous is None:
            raise ValueError(
                "nodes above 1 need a rendezvous: HOST:PORT, an address of the machine that does the round, as the "
                "other nodes reach it"
            )
        if self.nodes_on is not None and self.nodes == 1:
            raise ValueError("nodes_on starts the other nodes, and there are none: set nodes, or leave nodes_on out")
        return self

    @property
    def launched(self) -> bool:
        """Whether torchrun starts the processes that train."""
        return self.processes * self.nodes > 1


class AnsweringConfig(BaseModel):
    """How the trained student's answer is chosen: its bare answer and its rationales' answers are weighed, as fits the
    validation questions best (docs/distillation.md); not the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(0,),
        description="Numbers of rationales that are sampled beside the likeliest one, and vote. The weighing is fitted "
        "for each, the test questions are answered with each, and the first is what the student is registered with. "
        "`[]` leaves it out: the student gives its bare answer.",
    )
    temperature: float = Field(default=0.7, gt=0, description="Sampling temperature of these rationales.")


class TrainingConfig(BaseModel):
    """The part of a configuration that defines one training; `distill` may run several on the same data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    student: StudentConfig
    method: MethodConfig = MethodConfig()
    negatives: NegativesConfig = NegativesConfig()
    own: OwnSamplesConfig = OwnSamplesConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    optimisation: OptimisationConfig = OptimisationConfig()
    rounds: RoundsConfig = RoundsConfig()
    answering: AnsweringConfig = AnsweringConfig()
    risk: float | None = None  # registry.risk


@dataclass(frozen=True)
class Parts:
    """Which questions are for what.

    Attributes:
        train, validation, test: the questions.
        sampled_only: train only on those of `train` that the teacher was asked.
        further: more questions to train on, those that the teacher was asked.
    """

    train: QuestionSet
    validation: QuestionSet
    test: QuestionSet | None
    sampled_only: bool = False
    further: tuple[QuestionSet, ...] = ()

    @classmethod
    def of(
        cls,
        config: DatasetConfig,
        dataset: str,
        sampled_only: bool = False,
        further: Iterable[QuestionSet] = (),
    ) -> "Parts":
        """The parts of a configured dataset, whose stored name is `dataset`."""
        sets = {part: config.question_set(dataset, part) for part in config.splits()}
        return cls(sets["train"], sets["validation"], sets.get("test"), sampled_only, tuple(further))


class TrainingSpec(BaseModel):
    """A training that has been prepared: its configuration, its data, and where it lies.

    Attributes:
        training_id: content id of all that decides the outcome.
        dataset: as the configuration names it; a path for a YAML definition.
        store: root of the rationale store.
        rule: the rule of the votes.
        train, validation, test: its questions. With `registry.risk`, `validation` is one half of the validation
            questions, which chooses the round, and `certifying` the other one.
        data_digest: content id of the training set.
        test_digest: content id of the test questions. They decide nothing, so other ones do not change the training id.
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
    def certifying(self) -> QuestionSet | None:
        """The validation questions that nothing reads but the choice of a threshold; None without `registry.risk`."""
        return None if self.config.risk is None else self.validation.half(1)

    def own_before(self, t: int) -> int | None:
        """The round whose student writes the own samples of round t; None for none."""
        return t - 1 if t > 0 and self.config.own.samples and self.config.method.name == "qcrd" else None

    @property
    def name(self) -> str:
        """The student's name in the store's `model` columns, where "@round" follows."""
        return f"{self.train.dataset}-{self.config.method.name}-{self.training_id}"

    def student_name(self, round_: int) -> str:
        """The name of the student that a round ended with."""
        return f"{self.name}@{'initial' if round_ == INITIAL else round_}"

    def open_store(self) -> Store:
        """The store."""
        return Store(self.store)


def training_id(config: TrainingConfig, data_digest: str, validation_digest: str) -> str:
    """The content id of a training: the same for equal configuration and data, wherever its models lie.

    Args:
        config: with a definite precision. What changes only speed or safety does not count, nor does what the method
            does not use.
        data_digest: content id of the training set.
        validation_digest: content id of the validation questions, which choose the best round.
    """
    content: dict[str, Any] = config.model_dump(mode="json")
    for section, names in _NO_PART_OF_THE_ID.items():
        content[section] = {name: value for name, value in content[section].items() if name not in names}
    content["method"] = config.method.in_use()
    if not config.method.uses_negatives:
        del content["negatives"]
    if config.method.quality_source != "discriminator":
        del content["discriminator"]
    if not config.own.samples or config.method.name != "qcrd":
        del content["own"]
    if config.answering == AnsweringConfig():
        del content["answering"]
    if config.risk is None:
        del content["risk"]
    for section, name in (("student", "model"), ("student", "tokenizer"), ("discriminator", "encoder")):
        value = content.get(section, {}).get(name)
        if value not in (None, NEW, OF_THE_STUDENT):
            content[section][name] = model_revision(value) or value
    return content_id("training", content, data_digest, validation_digest)


def writes(method: MethodConfig) -> Writes:
    """What a student of a method was trained to write."""
    if method.one_target:
        return "rationale, then answer" if method.name == "single-task" else "answer, then rationale"
    return "answer" if method.rationales == "none" else "answer and rationale"
