"""Writing token by token with a T5, in half the time of transformers' own forward.

The layers are the model's own, adapters included; only attention over what was written and read is done here. Keys and
values of the input are computed once, those of the output live in tensors that grow in steps of 32 tokens, and masks
and relative positions (T5, Raffel et al. 2020, section 2.1) are one slice of one small table.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import MT5ForConditionalGeneration, T5ForConditionalGeneration

from models.student import Encoded, Student

GROW = 32
"""Tokens by which the room for keys and values grows. Unused room wastes computation; growing copies everything."""
T5_MODELS = (T5ForConditionalGeneration, MT5ForConditionalGeneration)


class T5Decoder:
    """A `models.decoding.Decoder` of T5, Flan-T5 and mT5.

    Args:
        student: its model is one of T5_MODELS.
        encoded: N inputs.
    """

    def __init__(self, student: Student, encoded: Encoded) -> None:
        self._model: Any = student.model
        self._blocks: list[Any] = list(self._model.decoder.block)
        attention = self._blocks[0].layer[0].SelfAttention
        self._heads, self._size = attention.n_heads, attention.key_value_proj_dim
        hidden = encoded.states[0]
        self._read = [
            (
                self._split(block.layer[1].EncDecAttention.k(hidden)),
                self._split(block.layer[1].EncDecAttention.v(hidden)),
            )
            for block in self._blocks
        ]  # of each layer keys and values of the input, each (N, heads, S, size)
        hides = torch.finfo(hidden.dtype).min
        self._read_bias = torch.zeros_like(encoded.mask, dtype=hidden.dtype).masked_fill_(~encoded.mask, hides)
        self._read_bias = self._read_bias[:, None, None]  # (N, 1, 1, S)
        empty = hidden.new_empty(2, len(hidden), self._heads, 0, self._size)
        self._written = [empty] * len(self._blocks)  # of each layer keys and values, (2, N, heads, room, size)
        self._length = self._room = 0
        self._table = empty  # see _grow

    def step(self, ids: Tensor) -> Tensor:
        if self._length == self._room:
            self._grow()
        newest = self._room - 1 - self._length
        bias = self._table[:, :, newest : newest + self._room]  # (heads, 1, room)
        hidden = self._model.decoder.embed_tokens(ids)  # (N, D)
        for block, written, read in zip(self._blocks, self._written, self._read, strict=True):
            own, cross, feed_forward = block.layer
            normed = own.layer_norm(hidden)
            for kept, layer in zip(written, (own.SelfAttention.k, own.SelfAttention.v), strict=True):
                kept[:, :, self._length] = layer(normed).view(-1, self._heads, self._size)
            hidden = hidden + self._attend(own.SelfAttention, normed, written[0], written[1], bias)
            hidden = hidden + self._attend(cross.EncDecAttention, cross.layer_norm(hidden), *read, self._read_bias)
            hidden = hidden + feed_forward.DenseReluDense(feed_forward.layer_norm(hidden))
        self._length += 1
        hidden = self._model.decoder.final_layer_norm(hidden)
        if self._model.config.scale_decoder_outputs:  # T5 and mT5 differ
            hidden = hidden * self._model.model_dim**-0.5
        logits: Tensor = self._model.lm_head(hidden)
        return logits

    def keep(self, rows: Tensor) -> None:
        self._read = [(keys[rows], values[rows]) for keys, values in self._read]
        self._read_bias = self._read_bias[rows]
        self._written = [written[:, rows] for written in self._written]

    def _attend(self, attention: Any, normed: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """What one new token of each row looks up in keys and values (N, heads, L, size): (N, D)."""
        queries = attention.q(normed).view(-1, self._heads, 1, self._size)
        scores = torch.matmul(queries, keys.transpose(2, 3)).add_(bias)  # (N, heads, 1, L); a T5 does not scale them
        shares = scores.softmax(3, dtype=torch.promote_types(scores.dtype, torch.float32)).to(values.dtype)
        found: Tensor = attention.o(torch.matmul(shares, values).flatten(1))
        return found

    def _grow(self) -> None:
        """Makes room for more tokens.

        The table holds what is added to the score of a key by its distance back: `_table[:, 0, room - 1 - t + j]`
        for key j seen from token t is the learnt bias of distance t - j, and hides keys that are yet to be written.
        """
        self._room += GROW
        padding = (0, 0, 0, GROW)  # zeros, not whatever is in memory: a share of 0 times NaN would be NaN
        self._written = [torch.nn.functional.pad(written, padding) for written in self._written]
        attention = self._blocks[0].layer[0].SelfAttention
        buckets = attention._relative_position_bucket(
            -torch.arange(self._room, device=self._read_bias.device),
            bidirectional=False,
            num_buckets=attention.relative_attention_num_buckets,
            max_distance=attention.relative_attention_max_distance,
        )
        learnt = attention.relative_attention_bias(buckets).T.flip(1)  # (heads, room), the farthest first
        hidden = torch.full_like(learnt[:, 1:], torch.finfo(learnt.dtype).min)
        self._table = torch.cat([learnt, hidden], dim=1)[:, None]  # (heads, 1, 2 * room - 1)

    def _split(self, states: Tensor) -> Tensor:
        """(N, S, heads * size) as (N, heads, S, size)."""
        return states.view(*states.shape[:2], self._heads, self._size).transpose(1, 2).contiguous()
