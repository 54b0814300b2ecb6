"""What can be set about the models: the student, the discriminator, their training, and the lab's teacher.

Checked as they are read, before anything starts. What they configure is built in other modules, which import torch and
transformers; that takes seconds, and a process that only reads or passes on a configuration need not wait for it.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from models.corruption import CorruptionConfig

NEW, OF_THE_STUDENT = "new", "student"
DiscriminatorLoss = Literal["ratio", "infonce", "bce"]
Schedule = Literal["constant", "linear", "cosine"]


class NewStudentConfig(BaseModel):
    """Sizes of a student with random weights; the defaults make the lab's student."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # The model
    architecture: Literal["t5", "llama"] = Field(
        default="t5", description="`t5` (encoder-decoder) or `llama` (decoder-only)."
    )
    hidden: int = Field(default=128, ge=8, description="Width of the hidden states, a multiple of `heads`.")
    layers: int = Field(
        default=2, ge=1, description="Number of layers; a T5 has as many in its encoder and again in its decoder."
    )
    heads: int = Field(default=4, ge=1, description="Attention heads, each hidden / heads wide.")
    intermediate: int = Field(default=384, ge=8, description="Width inside the feed-forward layers.")
    activation: Literal["gated-gelu", "relu"] = Field(
        default="gated-gelu",
        description="Activation in a T5's feed-forward layers: `gated-gelu` (T5 v1.1, Flan-T5) or `relu` (the first "
        "T5). A Llama has its own.",
    )
    seed: int = Field(default=0, description="Seed of the random weights.")

    # The tokenizer
    vocab_size: int = Field(
        default=1024,
        ge=300,
        description="Largest vocabulary of a tokenizer trained on the texts; a given tokenizer keeps its own.",
    )


class LoraConfig(BaseModel):
    """Low-rank adapters: which layers get one, and how large it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(default=16, ge=1, description="Rank of the product B A, which is added to a layer's weights.")
    alpha: int = Field(default=32, ge=1, description="The product is scaled by alpha / rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Share of an adapter's inputs dropped in training.")
    targets: tuple[str, ...] | None = Field(
        default=None,
        description="Names of the linear layers that get an adapter, such as [q, v] for a T5; null takes all but the "
        "output layer.",
    )
    seed: int = Field(default=0, description="Seed of A's random weights; B starts at 0.")


class StudentConfig(BaseModel):
    """The student, and how it is loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # The model
    model: str = Field(
        min_length=1,
        description="A model folder, a hub id (paper: google-t5/t5-base, 220M), or `new` for a small model with random "
        "weights.",
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit of a hub model.")
    new: NewStudentConfig | None = Field(
        default=None, description="Sizes of a `new` model; those of the lab's student by default."
    )
    tokenizer: str | None = Field(
        default=None,
        description="Tokenizer of a `new` model: a folder, or `lab` for the lab teacher's. By default one is trained "
        "on the texts.",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="Type of the weights in memory. bfloat16 halves the student, but training one loses small steps: "
        "train a float32 one and leave bfloat16 to `optimisation.precision`, or train adapters.",
    )
    dropout: float | None = Field(
        default=None, ge=0, lt=1, description="Share of activations dropped in training; the model's own by default."
    )
    lora: LoraConfig | None = Field(default=None, description="Train low-rank adapters instead of all weights.")

    # Lengths, in tokens (a decoder-only student must hold both together)
    max_input_tokens: int = Field(
        default=512,
        ge=1,
        description="Longest question with its prefix; the longest of e-SNLI, CQA, ANLI and SVAMP are shorter.",
    )
    max_target_tokens: int = Field(default=256, ge=1, description="Longest rationale or label.")

    @field_validator("dtype", mode="before")
    @classmethod
    def _no_fp16(cls, value: object) -> object:
        if value in ("float16", "fp16", "half"):
            raise ValueError("T5 overflows to NaN in float16; use 'bfloat16' or 'float32'")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.model != NEW and (self.new or self.tokenizer):
            raise ValueError(f"`new` and `tokenizer` belong to model: new; {self.model!r} brings its own")
        if self.model == NEW and self.revision:
            raise ValueError("`revision` belongs to a hub model; a new student has none")
        if self.model == NEW and self.lora:
            raise ValueError("`lora` needs a trained model to adapt; a new student is trained whole")
        return self


class DiscriminatorConfig(BaseModel):
    """The discriminator, and how it is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # The model
    encoder: str = Field(
        default=OF_THE_STUDENT,
        min_length=1,
        description="Where the encoder comes from: `student` copies the student's as it is when the discriminator is "
        "made (not that of a decoder-only student or a BART), a folder or hub id brings its own and its tokenizer (T5, "
        "BERT, DistilBERT, RoBERTa, ModernBERT, sentence encoders such as MiniLM), `new` starts from random weights.",
    )
    new: NewStudentConfig | None = Field(
        default=None, description="Sizes of a `new` encoder; those of the lab's student by default."
    )
    dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Share of the encoder's activations dropped in training; the encoder's own by default. A small "
        "`new` encoder learns faster with 0.",
    )
    hidden: int | None = Field(
        default=None, ge=1, description="Width between the two linear layers; the encoder's by default."
    )
    max_tokens: int = Field(
        default=1024,
        ge=8,
        description="Longest question and rationale together, in tokens; longer ones get no score. T5 has no limit of "
        "its own; this one bounds memory, and leaves room for the student's longest input (512) and target (256). "
        "Encoders that take fewer tokens (BERT: 512) keep to theirs.",
    )
    seed: int = Field(default=0, description="Seed of the linear layers' weights.")

    # The training
    loss: DiscriminatorLoss = Field(
        default="ratio",
        description="`ratio` (paper, eq. 2), `infonce` or `bce`. A small `new` encoder tells wrong calculations from "
        "right ones much better with `bce`.",
    )
    corruption: CorruptionConfig = Field(
        default=CorruptionConfig(), description="How positives are corrupted to balance the classes."
    )
    own_from: int = Field(
        default=0,
        ge=0,
        description="First round whose training of the discriminator sees the student's own texts. 1 keeps those of "
        "the untrained student from it, which anybody could tell apart.",
    )
    pretrain_steps: int = Field(default=500, ge=0, description="Optimizer steps before round 0 (paper: at most 500).")
    update_every: int = Field(default=1, ge=1, description="Rounds between two updates.")
    update_steps: int = Field(default=50, ge=1, description="Optimizer steps per update.")
    batch_size: int = Field(default=32, ge=1, description="Questions per step, each with all its rationales.")
    learning_rate: float = Field(
        default=1e-3,
        gt=0,
        description="AdamW's learning rate. Where it is too high, the `ratio` loss collapses for good: every score "
        "becomes 0, and none has a gradient.",
    )


class OptimisationConfig(BaseModel):
    """How the student is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # The batches
    batch_size: int = Field(default=32, ge=1, description="Questions per optimizer step, over all processes.")
    micro_batch_size: int | None = Field(
        default=None,
        ge=1,
        description="Questions at once in a process's memory; null takes as many of its share of the batch as are "
        "expected to fit into the memory that the machine has. Gradients are accumulated, so the result is the same up "
        "to rounding.",
    )

    # The optimizer
    optimizer: Literal["adamw", "adafactor", "muon"] = Field(
        default="adamw",
        description="`adamw`; `adafactor`, which needs less memory; or `muon`, which orthogonalises the updates of the "
        "matrices inside the layers (AdamW for the rest) and needs fewer steps for a model trained from scratch.",
    )
    learning_rate: float = Field(default=3e-4, gt=0, description="Learning rate at its peak.")
    weight_decay: float = Field(default=0.0, ge=0, description="Weight decay; biases and norms have none.")
    schedule: Schedule = Field(
        default="linear", description="Learning rate over all rounds: `constant`, `linear` (to 0) or `cosine` (to 0)."
    )
    warmup_steps: int = Field(default=0, ge=0, description="Steps over which the learning rate rises from 0.")
    clip_norm: float = Field(
        default=1.0, ge=0, description="Gradients with a larger norm are scaled down to this one; 0 clips nothing."
    )

    # The machine
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="`float32`, or `bfloat16` for autocast over float32 weights; `auto` takes `bfloat16` on a GPU or "
        "an AMX processor that multiplies in it, else `float32`. A training keeps the one it began with, on whatever "
        "machine it goes on. float16 is refused: T5 overflows in it.",
    )
    device: Literal["auto", "cpu"] = Field(default="auto", description="`auto` takes a GPU where there is one.")

    # Safety
    checkpoint_every_s: float = Field(default=300.0, gt=0, description="Seconds between checkpoints inside a round.")
    log_every: int = Field(
        default=10,
        ge=1,
        description="Steps between two looks at the loss; the round stops at a loss that is not a number.",
    )
    divergence_factor: float = Field(
        default=10.0,
        gt=1,
        description="The round stops when the running mean of the loss exceeds its lowest value by this factor.",
    )

    # Chance
    seed: int = Field(default=0, description="Seed of dropout and of the order of the questions.")

    @field_validator("precision", mode="before")
    @classmethod
    def _no_half(cls, value: Any) -> Any:
        if value in ("float16", "fp16", "half"):
            raise ValueError("T5 overflows to NaN in float16; use bfloat16 or float32")
        return value


class LabTeacherConfig(BaseModel):
    """Size, budget and seed of the lab's teacher. The defaults make it usefully wrong: `tasks.teacher.lab` says how.

    Parameters that control the worked problems it is trained on:
        texts: how many different ones (each is seen about `steps * batch_size / texts` times).
        slips: share of their calculations whose result is off by one.

    Parameters that control the model:
        vocab_size: maximum number of tokens in the tokenizer; 256 bytes and 3 special tokens are always among them.
        hidden, layers, heads, intermediate: the Llama's sizes; hidden / heads must be a head size that vLLM's CPU
            attention has.
        max_tokens: longest sequence the model takes, in tokens.

    Parameters that control the training:
        steps: optimizer steps.
        batch_size: problems per step.
        learning_rate, warmup_steps: linear warm-up, then linear decay to 0. Muon for the matrices inside the
            layers, Adam for embeddings and norms: on this task Muon needs fewer than half of Adam's steps.
        dtype: "float32", or "bfloat16" for autocast over float32 weights (hardly faster at this size).
        seed: of the weights and of the order of the problems.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    texts: int = Field(default=30_000, ge=1)
    slips: float = Field(default=0.25, ge=0, lt=1)

    vocab_size: int = Field(default=1024, ge=300)
    hidden: int = Field(default=128, ge=32)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    intermediate: int = Field(default=384, ge=32)
    max_tokens: int = Field(default=256, ge=32)

    steps: int = Field(default=800, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    warmup_steps: int = Field(default=50, ge=0)
    dtype: str = "float32"
    seed: int = 0

    @field_validator("dtype")
    @classmethod
    def _known_dtype(cls, value: str) -> str:
        if value in ("float16", "fp16", "half"):
            raise ValueError("float16 overflows in training without loss scaling; use 'bfloat16' or 'float32'")
        if value not in ("bfloat16", "float32"):
            raise ValueError(f"unknown dtype {value!r}; use 'bfloat16' or 'float32'")
        return value
