"""Writing token by token from what a student has read, for every architecture, through transformers' own forward."""

from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from models.student import DecoderOnlyStudent, Encoded, Student


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
        """Forgets all rows but these, (M,) indices; they get the numbers 0 to M - 1."""


def decoder_for(student: Student, encoded: Encoded) -> Decoder:
    """The fastest way this student has."""
    if isinstance(student, DecoderOnlyStudent):
        return DecoderOnlyDecoder(student, encoded)
    return EncoderDecoderDecoder(student, encoded)


class EncoderDecoderDecoder:
    """Any model of AutoModelForSeq2SeqLM."""

    def __init__(self, student: Student, encoded: Encoded) -> None:
        self._model: Any = student.model
        self._hidden, self._mask = encoded.states[0], encoded.mask.long()
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

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
        self._cache.batch_select_indices(rows)


class DecoderOnlyDecoder:
    """Any model of AutoModelForCausalLM that keeps keys and values."""

    def __init__(self, student: DecoderOnlyStudent, encoded: Encoded) -> None:
        self._model: Any = student.model
        arguments = student.continued(encoded, encoded.start[:, None])
        self._cache: DynamicCache = arguments["past_key_values"]
        self._positions: Tensor | None = arguments.get("position_ids")  # (N, 1)
        self._mask = encoded.mask.long()

    def step(self, ids: Tensor) -> Tensor:
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(ids), 1)], dim=1)
        positions = {} if self._positions is None else {"position_ids": self._positions}
        output = self._model(
            input_ids=ids[:, None], attention_mask=self._mask, past_key_values=self._cache, use_cache=True, **positions
        )
        if self._positions is not None:
            self._positions = self._positions + 1
        logits: Tensor = output.logits[:, -1]
        return logits

    def keep(self, rows: Tensor) -> None:
        self._mask = self._mask[rows]
        self._positions = None if self._positions is None else self._positions[rows]
        self._cache.batch_select_indices(rows)
