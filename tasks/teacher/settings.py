"""Which teacher a distillation learns from: the section `teacher` of its configuration."""

import re
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from models.server_settings import safe_arguments
from models.teacher_settings import Instruction, checked_extra_body, plain_http_url
from tasks.questions.choosing import Choose
from tasks.teacher.budget import Budget, Cost, tokens_of
from tasks.teacher.reading import Rationale
from tasks.teacher.stopping import Asking

LAB = "lab"
MOST_SAMPLES = 1024
MOST_SHARDS = 4096
Api = Literal["auto", "chat", "completions"]


def name_of_a_block(name: str) -> str:
    """The name of a Prefect Secret block, checked, lest somebody gives the key itself.

    Raises:
        ValueError: it cannot be one; does not repeat it.
    """
    if name.startswith("sk-") or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError("it is the name of a Prefect Secret block (small letters, digits and -), not the key itself")
    return name


class Price(BaseModel):
    """What the teacher costs per million tokens, in any currency."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_million_prompt: float = Field(default=0.0, ge=0, description="Price of a million prompt tokens.")
    per_million_completion: float = Field(default=0.0, ge=0, description="Price of a million completion tokens.")
    per_million_reasoning: float | None = Field(
        default=None,
        ge=0,
        description="Price of a million completion tokens that are thoughts; that of the others by default.",
    )

    @property
    def given(self) -> bool:
        """Whether anything has a price."""
        return bool(self.per_million_prompt or self.per_million_completion or self.per_million_reasoning)

    def of(
        self, prompt_tokens: int | None, completion_tokens: int | None, reasoning_tokens: int | None = 0
    ) -> float | None:
        """The price of some tokens; None if no price is given, or a number of tokens that has one is not known.

        Args:
            completion_tokens: thoughts included.
            reasoning_tokens: those of the thoughts.
        """
        reasoning_price = self.per_million_reasoning
        if reasoning_price is None:
            reasoning_price, reasoning_tokens = 0.0, 0
        shown = None if completion_tokens is None or reasoning_tokens is None else completion_tokens - reasoning_tokens
        counted = (
            (prompt_tokens, self.per_million_prompt),
            (shown, self.per_million_completion),
            (reasoning_tokens, reasoning_price),
        )
        priced = [(tokens, price) for tokens, price in counted if price]
        if not priced or any(tokens is None for tokens, _ in priced):
            return None
        return sum((tokens or 0) * price for tokens, price in priced) / 1e6


class RecordedFile(BaseModel):
    """Samples that somebody recorded, to be imported."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(
        description="JSONL, JSON, CSV or TSV (also .gz), or Parquet: one sample per row, or a question with several."
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="Where the file's columns have other names: field and column."
    )
    answers: Literal["parsed", "recorded"] = Field(
        default="parsed",
        description="`parsed` reads the answers from the texts, with the dataset's own parser; `recorded` takes the "
        "file's answers.",
    )


class TeacherSettings(BaseModel):
    """Where the rationales come from."""

    # Somebody may put a key where none belongs, so no error repeats a value.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    # The teacher
    source: Literal["sample", "import", "stored"] = Field(
        default="sample",
        description="`sample` a model (what is stored already is not sampled again), `import` recorded files, or take "
        "what is `stored`.",
    )
    model: str | None = Field(
        default=None,
        min_length=1,
        description="Model to sample: a folder or hub id that vLLM serves, `lab` for the lab's teacher, or with `url` "
        "the name that the endpoint serves.",
    )
    url: str | tuple[str, ...] | None = Field(
        default=None,
        description="An OpenAI-compatible endpoint, or a list of some that serve the same model; their key goes into "
        "QCRD_TEACHER_API_KEY, never into the URL.",
    )
    key_secret: str | None = Field(
        default=None,
        max_length=64,
        description="Name of the Prefect Secret block that holds the endpoint's key, instead of QCRD_TEACHER_API_KEY.",
    )
    name: str | None = Field(default=None, description="The teacher's name in the store; the model's by default.")
    files: tuple[RecordedFile, ...] = Field(default=(), description="Recorded samples to import.")
    teachers: tuple[str, ...] | None = Field(
        default=None,
        description="Stored teachers that vote, as globs (gpt-*); by default the sampled one alone, or all.",
    )

    # The questions
    budget: Budget | None = Field(
        default=None,
        description="The most that one run may ask for: `{questions: N}`, `{tokens: N}` or `{money: N}`; null asks all "
        "questions. What is stored costs nothing, and students then train on those questions alone that have samples.",
    )
    choose: Choose = Field(
        default="random",
        description="Which questions a budget buys: `random` ones, those that the champion is `uncertain` of, those "
        "where its answer and its rationale `disagree`, `diverse` ones, far from each other in its eyes, or `mixed`, "
        "random ones and uncertain ones in turn. `random` while there is no champion.",
    )
    random_share: float = Field(
        default=0.5, ge=0, le=1, description="With `choose: mixed`, the share that is random, 0 to 1."
    )

    # The sampling
    n: int | str = Field(
        default=5,
        description="Samples per question (paper: 5), or at least and at most, such as 2..8: a question is then asked "
        "again only while its majority is in doubt.",
    )
    doubt: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="With such an n: the chance that more samples give another majority, up to which it stays.",
    )
    temperature: float = Field(default=0.7, ge=0, le=10, description="Sampling temperature (paper: 0.7).")
    top_p: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Probability mass to sample from; 1 is all of it (paper). Less makes vLLM half as fast on a CPU.",
    )
    max_tokens: int = Field(default=256, ge=1, description="Longest sample, in tokens.")
    logprobs: bool = Field(
        default=False, description="Also store each sample's mean log-probability; half as fast on a CPU."
    )
    seed: int = Field(default=0, description="Seed of the samples; another one gives other samples.")
    extra_body: dict[str, Any] = Field(
        default_factory=dict,
        description="More fields for the body of every request, such as `reasoning_effort` or `chat_template_kwargs`; "
        "other values give other samples. null leaves a field out that an endpoint refuses, such as `seed`.",
    )

    # The reading
    rationale: Rationale = Field(
        default="auto",
        description="What students learn from where the teacher thinks first: the `final` text, the `thought`, `both`, "
        "or `auto`: the final text where it explains, else the thought. Changing it asks for nothing again.",
    )

    # The endpoint, or vLLM's server
    api: Api = Field(
        default="auto",
        description="`chat`, `completions`, or `auto`: `completions` for a local model without a chat template, else "
        "`chat`.",
    )
    instruction: Instruction = Field(
        default="system",
        description="Role of the chat message with the instruction: `system`, or `user` for a model that knows no "
        "system role (qcrd finds that out where the endpoint says so).",
    )
    batch: bool = Field(
        default=False,
        description="Ask through the endpoint's batches (OpenAI's `/v1/batches`): half the price, up to a day's wait.",
    )
    in_flight: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Requests under way at each endpoint, each for all samples of a question. By default as many as it "
        "takes without getting slower, up to 256; 64 at a vLLM server of qcrd's own.",
    )
    timeout_s: float = Field(
        default=600.0, gt=0, description="Seconds to wait for one reply, the endpoint's queue included."
    )
    retries: int = Field(
        default=6,
        ge=0,
        description="Times a request is tried again after 429, 5xx, a timeout, a lost connection or an unreadable "
        "reply.",
    )
    shards: int = Field(
        default=1,
        ge=1,
        le=MOST_SHARDS,
        description="Flow runs that share the questions among them, each with a server of its own or with `url`; the "
        "samples are the same as without.",
    )
    shards_on: str | None = Field(
        default=None,
        pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Deployment of the flow `sample-shard` whose work pool runs the shards, and votes on more than ten "
        "million samples, such as `kubernetes` of deploy/shards.yaml; null runs them on this machine.",
    )
    split_s: float | None = Field(
        default=600.0,
        gt=0,
        description="Split a shard in two when others are done and it needs more seconds than this; null never does.",
    )
    port: int | None = Field(default=None, ge=1, le=65535, description="Port of vLLM's server; a free one by default.")
    server_args: tuple[str, ...] = Field(
        default=(), description="More arguments of vLLM's server, as on its command line; they win over qcrd's own."
    )
    price: Price = Field(default=Price(), description="What the teacher costs.")

    @field_validator("n")
    @classmethod
    def _number_or_range(cls, n: int | str) -> int | str:
        least, most = _range(n)
        if not 1 <= least <= most <= MOST_SAMPLES:
            raise ValueError(
                f"it is a number from 1 to {MOST_SAMPLES:,}, or the least and the most of them, such as 2..8"
            )
        return least if least == most else f"{least}..{most}"

    @field_validator("url")
    @classmethod
    def _plain_http_url(cls, url: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if url is None or isinstance(url, str):
            return None if url is None else plain_http_url(url)
        if not url:
            raise ValueError("the list names no endpoint")
        urls = tuple(plain_http_url(one) for one in url)
        return urls if len(urls) > 1 else urls[0]

    @field_validator("extra_body")
    @classmethod
    def _checked_extra_body(cls, fields: dict[str, Any]) -> dict[str, Any]:
        return checked_extra_body(fields)

    @field_validator("key_secret")
    @classmethod
    def _name_of_a_block(cls, name: str | None) -> str | None:
        return None if name is None else name_of_a_block(name)

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
        if self.batch and (self.source != "sample" or not isinstance(self.url, str)):
            raise ValueError("`batch` (--batch) needs one `url`, of an endpoint that has batches")
        if self.shards > 1 and (self.source != "sample" or self.batch):
            raise ValueError(
                "`shards` belong to source: sample, and not to `batch`, which is one job of the endpoint's"
            )
        if self.shards > 1 and self.port is not None:
            raise ValueError("`port` is for one server, and each of the `shards` starts its own")
        if self.shards_on is not None and self.shards == 1:
            raise ValueError("`shards_on` needs `shards`: how many runs share the questions")
        self._check_budget()
        if self.key_secret is not None and (self.url is None or self.source != "sample"):
            raise ValueError("`key_secret` belongs to `url`: no other teacher asks for a key")
        return self

    def _check_budget(self) -> None:
        if self.budget is None:
            if self.choose != "random":
                raise ValueError(f"choose: {self.choose} needs a `budget`: without one all questions are asked")
            return
        if self.source != "sample":
            raise ValueError("`budget` belongs to source: sample; nothing else is paid")
        if self.budget.money is not None and not self.price.given:
            raise ValueError("a budget of money needs `price`")
        if self.budget.limit is not None:
            if self.shards > 1 or self.batch:
                raise ValueError(
                    "a budget of tokens or money is watched by one run, request by request: with `shards` or `batch` "
                    "take a budget of questions"
                )
            if not self.bounded:
                raise ValueError(
                    "a budget of tokens or money goes by teacher.max_tokens: leave max_tokens and "
                    "max_completion_tokens out of extra_body"
                )

    @property
    def bounded(self) -> bool:
        """Whether `max_tokens` is the most that a sample can have."""
        return {"max_tokens", "max_completion_tokens"}.isdisjoint(self.extra_body)

    @property
    def cost(self) -> Cost:
        """What tokens cost in the unit of the budget."""
        return self.price.of if self.budget is not None and self.budget.money is not None else tokens_of

    @property
    def urls(self) -> tuple[str, ...]:
        """The endpoints; none where a server is started."""
        return (self.url,) if isinstance(self.url, str) else self.url or ()

    @property
    def asking(self) -> Asking:
        """How often a question is asked."""
        least, most = _range(self.n)
        return Asking(least, most, self.doubt)

    def needs_lab(self) -> bool:
        """Whether the lab's teacher is to be sampled, so that it must have been built."""
        return self.source == "sample" and self.url is None and self.model == LAB


def _range(n: int | str) -> tuple[int, int]:
    """The least and the most samples that `n` says; (0, 0) if it says nothing that can be read."""
    found = re.fullmatch(r"(\d{1,6})(?:\.\.(\d{1,6}))?", str(n).strip())
    return (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
