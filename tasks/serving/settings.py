"""What a student is asked, and what a served one has to know besides its weights."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Writes = Literal["answer", "answer and rationale", "rationale, then answer"]
STUDENT, DISCRIMINATOR, DEFINITION = "student", "discriminator", "definition"


@dataclass(frozen=True)
class Question:
    """What is asked: a text, and the choices if the dataset has some."""

    question: str
    choices: tuple[str, ...] = ()


class AskingConfig(BaseModel):
    """What a student is asked for.

    Parameters that control the texts:
        writes: what it was trained to write: the answer alone (finetune, label-distill), answer and rationale under a
            prefix each (dss, mi, qcrd), or one text that ends in the answer (single-task).
        answer_tokens: longest answer, in tokens.

    Parameters that control the machine:
        batch_size: questions at once; None takes as many as fit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    writes: Writes = "answer and rationale"
    answer_tokens: int = Field(default=16, ge=1)
    batch_size: int | None = Field(default=None, ge=1)


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
        device: "auto" takes a GPU if there is one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    asking: AskingConfig = AskingConfig()
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_input_tokens: int = Field(default=512, ge=1)
    max_target_tokens: int = Field(default=256, ge=1)
    device: str = "auto"
