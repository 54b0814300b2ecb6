"""Which teacher a distillation learns from: the section `teacher` of its configuration."""

import re
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from models.server_settings import safe_arguments
from models.teacher_settings import plain_http_url

LAB = "lab"


class Price(BaseModel):
    """What a teacher costs, in any currency, per million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_million_prompt: float = Field(default=0.0, ge=0)
    per_million_completion: float = Field(default=0.0, ge=0)

    def of(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """The price of some tokens; None where no price is given."""
        if not self.per_million_prompt and not self.per_million_completion:
            return None
        return (prompt_tokens * self.per_million_prompt + completion_tokens * self.per_million_completion) / 1e6


class RecordedFile(BaseModel):
    """Samples that somebody recorded, to be imported.

    Attributes:
        path: JSONL, CSV (also .gz) or Parquet.
        columns: field -> column, where the file uses other names (`qcrd import --map`).
        answers: `parsed` by the dataset's own parser, or `recorded` in the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    columns: dict[str, str] = Field(default_factory=dict)
    answers: Literal["parsed", "recorded"] = "parsed"


class TeacherSettings(BaseModel):
    """Where rationales come from.

    Parameters that control which teacher:
        source: `sample` a model (what is stored already is not sampled again), `import` recorded files, or `stored`:
            what the store holds.
        model: to sample: a folder or hub id that vLLM serves, `lab` for the lab's teacher (trained if it is not there),
            or with `url` the name that the endpoint serves.
        url: an OpenAI-compatible endpoint; its key goes into QCRD_TEACHER_API_KEY, never into the URL.
        key_secret: or into a Secret block of Prefect's; this is the block's name.
        name: the teacher's name in the store; the model's if left out.
        files: to import.
        teachers: which of the stored teachers vote, as globs; the sampled one alone, or all, if left out.

    Parameters that control the sampling:
        n: samples a question (5, paper).
        temperature: 0.7 (paper).
        top_p, max_tokens, logprobs, seed: as for `qcrd sample`.
        api: auto, chat or completions.
        in_flight, timeout_s, retries: patience with the endpoint.
        port: vLLM's; a free one if left out.
        server_args: further arguments of vLLM's server.
        price: per million tokens.
    """

    # Somebody may have put a key where none belongs: no error repeats it.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    source: Literal["sample", "import", "stored"] = "sample"
    model: str | None = Field(default=None, min_length=1)
    url: str | None = None
    key_secret: str | None = Field(default=None, max_length=64)
    name: str | None = None
    files: tuple[RecordedFile, ...] = ()
    teachers: tuple[str, ...] | None = None

    n: int = Field(default=5, ge=1, le=1024)
    temperature: float = Field(default=0.7, ge=0, le=10)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=256, ge=1)
    logprobs: bool = False
    seed: int = 0
    api: Literal["auto", "chat", "completions"] = "auto"
    in_flight: int = Field(default=64, ge=1, le=4096)
    timeout_s: float = Field(default=600.0, gt=0)
    retries: int = Field(default=6, ge=0)
    port: int | None = Field(default=None, ge=1, le=65535)
    server_args: tuple[str, ...] = ()
    price: Price = Price()

    @field_validator("url")
    @classmethod
    def _plain_http_url(cls, url: str | None) -> str | None:
        return None if url is None else plain_http_url(url)

    @field_validator("key_secret")
    @classmethod
    def _name_of_a_block(cls, name: str | None) -> str | None:
        if name is not None and (name.startswith("sk-") or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)):
            raise ValueError(
                "it is the name of a Prefect Secret block (small letters, digits and -), not the key itself"
            )
        return name

    @field_validator("server_args")
    @classmethod
    def _safe_arguments(cls, arguments: tuple[str, ...]) -> tuple[str, ...]:
        return safe_arguments(arguments)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.source == "sample" and self.model is None:
            raise ValueError("source: sample needs `model`: a folder or hub id, `lab`, or the name that `url` serves")
        if self.source == "import" and not self.files:
            raise ValueError("source: import needs `files`")
        if self.source != "import" and self.files:
            raise ValueError("`files` belong to source: import")
        if self.key_secret is not None and (self.url is None or self.source != "sample"):
            raise ValueError("`key_secret` belongs to `url`: no other teacher asks for a key")
        return self

    def needs_lab(self) -> bool:
        """Whether the lab's teacher is to be sampled, and so must be there."""
        return self.source == "sample" and self.url is None and self.model == LAB
