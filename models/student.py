"""The student: a Hugging Face model and its tokenizer behind one small interface, whatever its architecture.

    student = load_student("google-t5/t5-small")            # or a folder, or a decoder-only model
    encoded = student.encode(ids, mask)                     # one pass over B inputs
    ce = student.cross_entropy(encoded.rows(owner), targets)  # (N,) for N targets; owner[n] is the input of target n

An encoder-decoder reads the input with its encoder; its decoder writes the target. A decoder-only model reads the
input and a line break as the beginning of its own text; its keys and values of that are computed once and every
target goes on from them. Either way all targets of one question share one pass over it (docs/distillation.md).
"""

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.modeling_outputs import BaseModelOutput

from models.errors import BadStudent
from models.lab_teacher import save_model_folder
from models.lora import has_lora, merged
from models.losses import IGNORED, token_cross_entropy
from models.memory import Footprint, footprint
from models.prefixes import SEPARATOR

STUDENT_FILE = "student.json"
KEYS_AND_VALUES = (DynamicLayer, DynamicSlidingWindowLayer)
"""What a layer may remember. Their subclasses remember more than keys and values, such as a recurrent state."""


@dataclass(frozen=True)
class Encoded:
    """What a student remembers of inputs it has read; targets are scored or written from it.

    Attributes:
        states: an encoder-decoder's hidden states (B, S, D); a decoder-only model's keys and values, one after the
            other for each layer, each (B, heads, S, head size).
        mask: (B, S), True where a target may look.
        start: (B,) the token that a target's first token is predicted from.
    """

    states: tuple[Tensor, ...]
    mask: Tensor
    start: Tensor

    def rows(self, owner: Tensor) -> "Encoded":
        """One row for each target.

        Args:
            owner: (N,) the input (0 to B - 1) of each target.

        Returns:
            N rows; gradients of all of an input's targets meet in its one encoder pass.
        """
        states = tuple(state.index_select(0, owner) for state in self.states)
        return Encoded(states, self.mask.index_select(0, owner), self.start.index_select(0, owner))

    def detach(self) -> "Encoded":
        """The same without gradients into the encoder pass."""
        return Encoded(tuple(state.detach() for state in self.states), self.mask, self.start)


@dataclass(frozen=True)
class BaseModelNote:
    """The model that adapters belong to: its folder or hub id, the hub's revision, and a local folder's fingerprint."""

    model: str
    revision: str | None
    fingerprint: str | None


class Student(torch.nn.Module, ABC):
    """A model that answers and explains.

    Args:
        model: a transformers model of the right kind, in float32 or bfloat16.
        tokenizer: its tokenizer, with an end and a padding token.
        max_input_tokens, max_target_tokens: what callers should keep to; nothing is cut here.

    Attributes:
        kind: "encoder-decoder" or "decoder-only".
        base: of a student with adapters: what they were put on; `save` notes it.
        pad_id, eos_id: ids of the tokenizer's padding and end tokens.

    Raises:
        BadStudent: the model is of the other kind or cannot be a student, or the limits are longer than the model's.
    """

    kind: ClassVar[str]

    def __init__(self, model: Any, tokenizer: Any, max_input_tokens: int = 512, max_target_tokens: int = 256) -> None:
        super().__init__()
        self.model = model
        self.train(model.training)  # a new module would say that it is being trained, whatever its parts do
        self.tokenizer = tokenizer
        self.max_input_tokens = max_input_tokens
        self.max_target_tokens = max_target_tokens
        self.base: BaseModelNote | None = None
        name = type(model).__name__
        if tokenizer.eos_token_id is None:
            raise BadStudent(f"The tokenizer of this {name} has no end token, so no text would end; take another one.")
        if bool(model.config.is_encoder_decoder) != (self.kind == "encoder-decoder"):
            raise BadStudent(f"{name} is not {self.kind}; load_student picks the right class.")
        self.eos_id: int = tokenizer.eos_token_id
        self.pad_id: int = self.eos_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        # GPT-2, BART and most decoder-only models know only so many positions; a T5's are relative, without end.
        self.max_positions: int | None = getattr(model.config, "max_position_embeddings", None)
        longest = self._longest()
        if self.max_positions is not None and longest > self.max_positions:
            raise BadStudent(
                f"This {name} takes {self.max_positions} tokens at once, but max_input_tokens {max_input_tokens} and "
                f"max_target_tokens {max_target_tokens} allow {longest}; lower them."
            )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.device
        return device

    def save(self, folder: Path, merge: bool = False) -> None:
        """Saves everything that `load_student` needs; `folder` is complete or not there, one that is there is replaced.

        Args:
            folder: gets safetensors, config, tokenizer and student.json; of a student with adapters the adapters only,
                and a note of the model they belong to.
            merge: add adapters into the weights, so that the folder stands alone.
        """
        adapters = has_lora(self.model) and not merge
        note = {
            "kind": self.kind,
            "max_input_tokens": self.max_input_tokens,
            "max_target_tokens": self.max_target_tokens,
            "base": asdict(self.base) if adapters and self.base else None,
        }

        def write(partial: Path) -> None:
            (merged(self.model) if has_lora(self.model) and merge else self.model).save_pretrained(partial)
            (partial / STUDENT_FILE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")

        save_model_folder(SimpleNamespace(save_pretrained=write), self.tokenizer, folder)

    @abstractmethod
    def input_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of inputs, with everything the model needs around them; never cut."""

    @abstractmethod
    def target_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of targets, the end token last; never cut."""

    @abstractmethod
    def encode(self, ids: Tensor, mask: Tensor) -> Encoded:
        """Reads inputs once.

        Args:
            ids: (B, S) from `input_ids`, padded on the right.
            mask: (B, S), True (or 1) for real tokens.
        """

    @abstractmethod
    def token_logits(self, encoded: Encoded, targets: Tensor) -> Tensor:
        """What the student predicts for every token of targets, each from the true tokens before it.

        Args:
            encoded: N rows.
            targets: (N, T) token ids, padded on the right with -100.

        Returns:
            (N, T, V) logits; meaningless at padded positions.
        """

    @cached_property
    @abstractmethod
    def reader(self) -> Footprint:
        """What decides the memory of `encode`."""

    @cached_property
    def writer(self) -> Footprint:
        """What decides the memory of `token_logits`."""
        return footprint(self.model, self.model.config, decoder=True)

    def cross_entropy(self, encoded: Encoded, targets: Tensor) -> Tensor:
        """CE of docs/distillation.md: the mean token cross-entropy of each target, padding left out.

        Args:
            encoded: N rows; `encode(...).rows(owner)`.
            targets: (N, T) token ids, padded on the right with -100.

        Returns:
            (N,) nats per token, in float32 at least.
        """
        return token_cross_entropy(self.token_logits(encoded, targets), targets)

    def _shifted(self, encoded: Encoded, targets: Tensor) -> Tensor:
        """(N, T) what is fed in to predict the targets: the start token, then each target token but the last."""
        fed = torch.cat([encoded.start[:, None], targets[:, :-1]], dim=1)
        return fed.masked_fill(fed == IGNORED, self.pad_id)

    @abstractmethod
    def _longest(self) -> int:
        """Positions that an input and a target of the longest allowed lengths need."""

    def _plain_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of the texts alone."""
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []


class EncoderDecoderStudent(Student):
    """T5, Flan-T5 (the paper's students) and every other model of AutoModelForSeq2SeqLM."""

    kind = "encoder-decoder"

    def __init__(self, model: Any, tokenizer: Any, max_input_tokens: int = 512, max_target_tokens: int = 256) -> None:
        super().__init__(model, tokenizer, max_input_tokens, max_target_tokens)
        start_id = model.config.decoder_start_token_id
        if start_id is None:
            raise BadStudent(f"The config of this {type(model).__name__} has no decoder_start_token_id; add it there.")
        self.start_id: int = start_id
        # T5's and BART's tokenizers end their sequences themselves and know what belongs before them. Others, as one
        # made for a decoder-only teacher, do not: there the text is followed by the end token, T5's convention.
        self._ends_itself: bool = tokenizer("a")["input_ids"][-1] == self.eos_id

    def input_ids(self, texts: Sequence[str]) -> list[list[int]]:
        if self._ends_itself:
            return self.tokenizer(list(texts))["input_ids"] if texts else []
        return [[*ids, self.eos_id] for ids in self._plain_ids(texts)]

    def target_ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self.input_ids(texts)

    def encode(self, ids: Tensor, mask: Tensor) -> Encoded:
        hidden = self.model.get_encoder()(input_ids=ids, attention_mask=mask.long()).last_hidden_state  # (B, S, D)
        return Encoded((hidden,), mask.bool(), ids.new_full((len(ids),), self.start_id))

    @cached_property
    def reader(self) -> Footprint:
        return footprint(self.model.get_encoder(), self.model.config, decoder=False)

    def token_logits(self, encoded: Encoded, targets: Tensor) -> Tensor:
        # No mask over the target: padding is on the right, so no real token can look at it.
        logits: Tensor = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded.states[0]),
            attention_mask=encoded.mask.long(),
            decoder_input_ids=self._shifted(encoded, targets),
            use_cache=False,
        ).logits
        return logits

    def _longest(self) -> int:
        return max(self.max_input_tokens, self.max_target_tokens)  # each has positions of its own


class DecoderOnlyStudent(Student):
    """Llama, Qwen, SmolLM2 and every other model of AutoModelForCausalLM that keeps keys and values."""

    kind = "decoder-only"

    def __init__(self, model: Any, tokenizer: Any, max_input_tokens: int = 512, max_target_tokens: int = 256) -> None:
        super().__init__(model, tokenizer, max_input_tokens, max_target_tokens)
        if not all(type(layer) in KEYS_AND_VALUES for layer in DynamicCache(config=model.config).layers):
            raise BadStudent(
                f"{type(model).__name__} does not remember its input as keys and values only, which sharing one pass "
                "over a question needs; take a Llama, Qwen, SmolLM2 or another plain transformer."
            )
        first = tokenizer("a")["input_ids"][0]
        self._before: list[int] = [first] if first == tokenizer.bos_token_id else []
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    def input_ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [[*self._before, *ids] for ids in self._plain_ids([text + SEPARATOR for text in texts])]

    def target_ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [[*ids, self.eos_id] for ids in self._plain_ids(texts)]

    def encode(self, ids: Tensor, mask: Tensor) -> Encoded:
        # Padding is on the right, so no real token looks at it and no mask is needed here.
        # The model without its output layer: nobody reads the input's logits.
        cache = self.model.base_model(input_ids=ids, past_key_values=DynamicCache(), use_cache=True).past_key_values
        # An input's last token is not remembered but fed in before each target: the target's start token. What is
        # remembered moves to the right, so that the target follows it directly: many models find out how far back a
        # token is by counting places, padding included (sliding windows, local attention, ALiBi).
        length = mask.shape[1]
        last = mask.sum(1, keepdim=True) - 1  # (B, 1)
        places = torch.arange(length, device=ids.device) + last  # (B, S), round the end: last token, padding, the rest
        states = tuple(
            state.gather(2, (places % length)[:, None, :, None].expand_as(state))
            for layer in cache.layers
            for state in (layer.keys, layer.values)
        )
        return Encoded(states, places >= length, ids.gather(1, last).squeeze(1))

    @cached_property
    def reader(self) -> Footprint:
        return replace(self.writer, logits=0)

    def token_logits(self, encoded: Encoded, targets: Tensor) -> Tensor:
        cache = DynamicCache(list(zip(encoded.states[::2], encoded.states[1::2], strict=True)))
        logits: Tensor = self.model(**self.arguments(self._shifted(encoded, targets), encoded.mask, cache)).logits
        return logits

    def arguments(self, ids: Tensor, mask: Tensor, cache: Any) -> dict[str, Any]:
        """The model's arguments for tokens that go on from a cache.

        Args:
            ids: (N, T), real tokens or padding on the right.
            mask: (N, S) of what is in the cache, true where it counts; padding is on the left.
            cache: with S tokens; the forward pass adds T.
        """
        mask = torch.cat([mask.long(), torch.ones_like(ids)], dim=1)  # (N, S + T)
        arguments = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache, "use_cache": True}
        if self._takes_positions:  # padding takes up no position
            arguments["position_ids"] = mask.cumsum(1)[:, -ids.shape[1] :] - 1
        return arguments

    def _longest(self) -> int:
        return self.max_input_tokens + self.max_target_tokens


def pad(rows: Sequence[Sequence[int]], value: int) -> tuple[Tensor, Tensor]:
    """Rows of token ids as one tensor, padded on the right.

    Returns:
        (B, S) int64 ids, and (B, S) booleans, True for real tokens.
    """
    lengths = torch.tensor([len(row) for row in rows])
    longest = int(lengths.max()) if rows else 0
    ids = torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], dtype=torch.long)
    return ids.view(len(rows), longest), torch.arange(longest) < lengths[:, None]
