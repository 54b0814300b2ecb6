"""What can be set about the models: the student, the discriminator, their training, and the lab's teacher.

Checked as they are read, before anything starts. What they configure is built in other modules, which import torch and
transformers; that takes seconds, and a process that only reads or passes on a configuration goes without.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from models.corruption import CorruptionConfig

NEW, OF_THE_STUDENT = "new", "student"
DiscriminatorLoss = Literal["ratio", "infonce", "bce"]
Schedule = Literal["constant", "linear", "cosine"]


class NewStudentConfig(BaseModel):
    """Sizes and seed of a student that is built, not loaded. The defaults make the lab's student.

    Parameters that control the model:
        architecture: "t5" (encoder-decoder) or "llama" (decoder-only).
        hidden: width of the hidden states; a multiple of `heads`.
        layers: a T5 has as many in its encoder and again in its decoder.
        heads: attention heads; each is hidden / heads wide.
        intermediate: width inside the feed-forward layers.
        activation: of a T5's feed-forward layers, "gated-gelu" (T5 v1.1, Flan-T5) or "relu" (the first T5); a Llama
            has its own.
        seed: of the random weights.

    Parameters that control the tokenizer:
        vocab_size: most tokens that a tokenizer trained on the texts may have; a given tokenizer has its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Literal["t5", "llama"] = "t5"
    hidden: int = Field(default=128, ge=8)
    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)
    intermediate: int = Field(default=384, ge=8)
    activation: Literal["gated-gelu", "relu"] = "gated-gelu"
    seed: int = 0

    vocab_size: int = Field(default=1024, ge=300)


class LoraConfig(BaseModel):
    """Which layers get an adapter and how large it is.

    Parameters that control the adapters:
        rank: of the product B A.
        alpha: the product is scaled by alpha / rank.
        dropout: share of an adapter's inputs left out in training.
        targets: names of the linear layers, as ("q", "v") for a T5; None takes all but the output layer.
        seed: of the random weights of A; B begins at 0.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] | None = None
    seed: int = 0


class StudentConfig(BaseModel):
    """Which student, and how it is loaded.

    Parameters that control the model:
        model: a model folder, a hub id (the paper's: google-t5/t5-base, 220M), or "new" for a small one with random
            weights.
        revision: of a hub model: a branch, tag or commit.
        new: sizes of a "new" one; its defaults if left out.
        tokenizer: of a "new" one: a folder with a tokenizer; if left out, one is trained on the texts.
        dtype: of the weights in memory. A bfloat16 student is half as large, but training one loses small steps:
            train a float32 one and let the trainer compute in bfloat16, or train adapters.
        dropout: share of activations left out in training; if left out, the model's own.
        lora: train low-rank adapters instead of all weights.

    Parameters that control lengths, in tokens (of a Llama and its like, both together must fit the model):
        max_input_tokens: longest question with its prefix; the longest of e-SNLI, CQA, ANLI and SVAMP are shorter.
        max_target_tokens: longest rationale or label.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1)
    revision: str | None = None
    new: NewStudentConfig | None = None
    tokenizer: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    dropout: float | None = Field(default=None, ge=0, lt=1)
    lora: LoraConfig | None = None

    max_input_tokens: int = Field(default=512, ge=1)
    max_target_tokens: int = Field(default=256, ge=1)

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
    """The discriminator and how it is trained.

    Parameters that control the model:
        encoder: "student" starts from a copy of the student's encoder as it is when the discriminator is made (a T5
            only); a folder or hub id from that T5's encoder, with its tokenizer; "new" from random weights.
        new: sizes of a "new" encoder; the lab student's if left out.
        dropout: share of the encoder's activations left out in training; the encoder's own if left out. A small new
            encoder learns faster with 0.
        hidden: width between the two linear layers; the encoder's if left out.
        max_tokens: longest question and rationale together, in tokens. T5 knows no limit of its own; this one guards
            memory, and leaves room for the student's longest input (512) and target (256).
        seed: of the linear layers' weights.

    Parameters that control the training:
        loss: ratio (paper, eq. 2), infonce or bce. A small new encoder tells wrong sums from right ones much better
            after bce.
        corruption: how positives are spoilt to balance the classes.
        pretrain_steps: optimizer steps before round 0; at most 500 in the paper.
        update_every: rounds between two updates.
        update_steps: optimizer steps of one update.
        batch_size: examples per step, each with all its rationales.
        learning_rate: AdamW's. Too high a one ends ratio for good: every score becomes 0 and none has a gradient.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str = Field(default=OF_THE_STUDENT, min_length=1)
    new: NewStudentConfig | None = None
    dropout: float | None = Field(default=None, ge=0, lt=1)
    hidden: int | None = Field(default=None, ge=1)
    max_tokens: int = Field(default=1024, ge=8)
    seed: int = 0

    loss: DiscriminatorLoss = "ratio"
    corruption: CorruptionConfig = CorruptionConfig()
    pretrain_steps: int = Field(default=500, ge=0)
    update_every: int = Field(default=1, ge=1)
    update_steps: int = Field(default=50, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)


class OptimisationConfig(BaseModel):
    """How a module is trained.

    Parameters that control the batches:
        batch_size: examples per optimizer step, over all processes.
        micro_batch_size: examples at once in a process's memory; None takes its share of the batch whole. Gradients
            are accumulated, so the result is the same.

    Parameters that control the optimizer:
        optimizer: adamw or adafactor.
        learning_rate: at its peak.
        weight_decay: AdamW's.
        schedule: constant, linear (to 0) or cosine (to 0), over all rounds.
        warmup_steps: steps in which the rate rises from 0.
        clip_norm: gradients longer than this are shortened to it; 0 clips nothing.

    Parameters that control the machine:
        precision: float32, or bfloat16 for autocast over float32 weights; auto takes bfloat16 on a GPU or an AMX
            processor that multiplies in it, else float32. A training keeps the one it began with, on whatever machine
            it goes on. float16 is refused: T5 overflows in it.
        device: auto takes a GPU where there is one.

    Parameters that control safety:
        checkpoint_every_s: seconds between checkpoints inside a round.
        log_every: steps between two looks at the loss; a loss that is no number stops the round there.
        divergence_factor: the round stops when the running mean of the loss exceeds its lowest value by this factor.

    seed: of dropout and of the order of the examples.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: int = Field(default=32, ge=1)
    micro_batch_size: int | None = Field(default=None, ge=1)
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    learning_rate: float = Field(default=3e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Schedule = "linear"
    warmup_steps: int = Field(default=0, ge=0)
    clip_norm: float = Field(default=1.0, ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu"] = "auto"
    checkpoint_every_s: float = Field(default=300.0, gt=0)
    log_every: int = Field(default=10, ge=1)
    divergence_factor: float = Field(default=10.0, gt=1)
    seed: int = 0

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
        vocab_size: most tokens the tokenizer may have; 256 bytes and 3 special tokens are always among them.
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
