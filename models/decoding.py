"""Writing token by token from what a student has read, for every architecture, through transformers' own forward."""

from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import EncoderDecoderCache
from transformers.cache_utils import Cache, DynamicLayer
from transformers.modeling_outputs import BaseModelOutput

from models.student import DecoderOnlyStudent, Encoded, Student
from models.t5_decoding import GROW, T5_MODELS, T5Decoder


class Decoder(Protocol):
    """Texts being written, one row each."""

    def step(self, ids: Tensor) -> Tensor:
        """Appends one token to every text.

        Args:
            ids: (N,) the tokens; at first the `start` of what was encoded.

        Returns:
            (N, V) logits of the token after it.
        """

    def keep(self, rows: Tensor) -> None:
        """Drops all rows but these, (M,) indices; they are renumbered 0 to M - 1."""


def decoder_for(student: Student, encoded: Encoded) -> Decoder:
    """The fastest decoder for this student."""
    if isinstance(student, DecoderOnlyStudent):
        return DecoderOnlyDecoder(student, encoded)
    if isinstance(student.model, T5_MODELS):
        return T5Decoder(student, encoded)
    return EncoderDecoderDecoder(student, encoded)


class EncoderDecoderDecoder:
    """Any model of AutoModelForSeq2SeqLM."""

    def __init__(self, student: Student, encoded: Encoded) -> None:
        self._model: Any = student.model
        self._hidden, self._mask = encoded.states[0], encoded.mask.long()
        self._cache = EncoderDecoderCache(_roomy_cache(), _roomy_cache())

    def step(self, ids: Tensor) -> Tensor:
        output = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._hidden),
            attention_mask=self._mask,
            decoder_input_ids=ids[:, None],
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def keep(self, rows: Tensor) -> None:
        self._hidden, self._mask = self._hidden[rows], self._mask[rows]
        for cache in (self._cache.self_attention_cache, self._cache.cross_attention_cache):
            _keep(cache, rows)


class DecoderOnlyDecoder:
    """Any model of AutoModelForCausalLM that keeps keys and values."""

    def __init__(self, student: DecoderOnlyStudent, encoded: Encoded) -> None:
        self._student = student
        self._cache = _roomy_cache()
        for layer, (keys, values) in enumerate(zip(encoded.states[::2], encoded.states[1::2], strict=True)):
            self._cache.update(keys, values, layer)
        self._mask = encoded.mask

    def step(self, ids: Tensor) -> Tensor:
        arguments = self._student.arguments(ids[:, None], self._mask, self._cache)
        self._mask = arguments["attention_mask"]
        logits: Tensor = self._student.model(**arguments).logits[:, -1]
        return logits

    def keep(self, rows: Tensor) -> None:
        self._mask = self._mask[rows]
        _keep(self._cache, rows)


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer in tensors with room for more: transformers' own copies everything at each token."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._roomy = [key_states[:, :, :0], value_states[:, :, :0]]
        before = self.get_seq_length()
        after = before + key_states.shape[2]
        if after > self._roomy[0].shape[2]:
            more = (0, 0, 0, after + GROW - self._roomy[0].shape[2])
            self._roomy = [torch.nn.functional.pad(kept, more) for kept in self._roomy]
        for kept, states in zip(self._roomy, (key_states, value_states), strict=True):
            kept[:, :, before:after] = states
        self.keys, self.values = (kept[:, :, :after] for kept in self._roomy)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        length = self.get_seq_length()
        self._roomy = [kept[indices] for kept in self._roomy]
        self.keys, self.values = (kept[:, :, :length] for kept in self._roomy)


def _roomy_cache() -> Any:
    return Cache(layer_class_to_replicate=_RoomyLayer)


def _keep(cache: Any, rows: Tensor) -> None:
    for layer in cache.layers:
        layer.batch_select_indices(rows)
