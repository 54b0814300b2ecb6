"""What a student is asked, and what a served one has to know besides its weights."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Writes = Literal["answer", "answer and rationale", "rationale, then answer", "answer, then rationale"]
ANSWER_END = " | "
"""Between the two where the answer comes first."""
STUDENT, DISCRIMINATOR, DEFINITION = "student", "discriminator", "definition"
ABSTAINS_ALWAYS = 2.0
"""A threshold above every confidence."""
REFUSAL = "I do not know"
"""What a student learns to answer where it should abstain (`method.abstain_below`)."""
AS_REGISTERED = -1
"""In place of a number of samples: as many as the student was registered with."""


@dataclass(frozen=True)
class Question:
    """What is asked: a text, and the choices if the dataset has some."""

    question: str
    choices: tuple[str, ...] = ()


class Decision(BaseModel):
    """How one answer is chosen among those that a student gives to a question, and how sure it is.

    A conditional logit (McFadden 1974) with "none of them" as a further choice; docs/distillation.md has the formula,
    `tasks.serving.deciding` computes it, and `tasks.training.calibration` fits it to the validation questions.

    Attributes:
        samples: sampled rationales for which it was fitted.
        head: weight of the log-probability of an answer without a rationale.
        votes: weight of the log of its share of the rationales.
        quality: weight of the log of its share of the rationales' quality; 0 without a discriminator.
        arithmetic: weight of the log of its share of the rationales with right arithmetic.
        none: log-odds of "none of them".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int = Field(ge=0)
    head: float
    votes: float
    quality: float
    arithmetic: float = 0.0  # a student registered by an earlier version has none
    none: float


class AskingConfig(BaseModel):
    """What a student is asked for.

    Parameters that control the texts:
        writes: what it was trained to write: the answer alone (finetune, label-distill), answer and rationale under a
            prefix each (dss, mi, qcrd), or one text that ends in the answer (single-task) or begins with it
            (`method.targets: answer-first`).
        answer_tokens: longest answer, in tokens.
        answers_only: of a text that begins with the answer, write no more than that.

    Parameters that control the choice of an answer:
        samples: rationales that are sampled beside the likeliest one; their answers vote.
        temperature: of these.
        decisions: how answer and rationales are weighed, for some numbers of samples; the nearest one is taken. Without
            any, the answer is the text under `predict: `.

    Parameters that control the machine:
        batch_size: questions at once; None takes as many as fit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    writes: Writes = "answer and rationale"
    answer_tokens: int = Field(default=16, ge=1)
    answers_only: bool = False
    samples: int = Field(default=0, ge=0)
    temperature: float = Field(default=0.7, gt=0)
    decisions: tuple[Decision, ...] = ()
    batch_size: int | None = Field(default=None, ge=1)

    @property
    def decision(self) -> Decision | None:
        """The one for the nearest number of samples."""
        return min(self.decisions, key=lambda one: (abs(one.samples - self.samples), one.samples), default=None)


class ServedConfig(BaseModel):
    """What a served student has to know besides its weights.

    It is MLflow's `model_config`, so whoever loads the model may override it:
    `load_model(uri, model_config={"device": "cpu"})`.

    Parameters that control the questions:
        dataset: name of a built-in dataset, or the file name of the YAML definition that travels with the model.
        asking: what the student is asked for.

    Parameters that control the student:
        dtype: of its weights in memory.
        max_input_tokens: longest question; a longer one gets no answer.
        max_target_tokens: longest rationale.
        judges: whether the student scores rationales itself (`method.quality_by: judge`).

    Parameters that control the answers:
        abstain_below: least confidence of an answer that is given; a less sure one is withheld. None gives every
            answer. ABSTAINS_ALWAYS gives none.
        device: "auto" takes a GPU if there is one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    asking: AskingConfig = AskingConfig()
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_input_tokens: int = Field(default=512, ge=1)
    max_target_tokens: int = Field(default=256, ge=1)
    device: str = "auto"
    judges: bool = False
    abstain_below: float | None = Field(default=None, ge=0)
