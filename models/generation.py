"""Texts written by a student, greedily or sampled, many at once.

    generate(student, ["predict: Ann has 3 apples ..."], max_new_tokens=8)
    generate(student, questions, max_new_tokens=128, temperature=1.5, seeds=seeds)

vLLM cannot run a T5, and transformers' `generate` computes every row to the end of the longest. Here rows of similar
length share a batch, and finished rows leave it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.cpu_linear import faster_linears
from models.decoding import decoder_for
from models.errors import BadStudent
from models.sampling import choose, uniforms
from models.student import Student, pad

BATCH_TOKENS = 49_152
"""Longest input plus longest output, times rows: 260 rows of the lab's. More of its rows are slower on a CPU, whose
cache does not hold what they remember. A T5-small in float32 takes 1.2 GB for so many."""
KEEP_SHARE = 0.9
"""Rows are dropped when fewer than this share is still being written; dropping copies what the others remember."""


@dataclass(frozen=True)
class Generated:
    """One written text.

    Attributes:
        text: without special tokens.
        ids: the tokens as they were written, the end token included. The text, tokenised again, is often others.
        finish_reason: "stop" where the student ended the text, "length" where `max_new_tokens` did.
    """

    text: str
    ids: Sequence[int]
    finish_reason: Literal["stop", "length"]

    @property
    def tokens(self) -> int:
        """How many were written, the end token among them."""
        return len(self.ids)


def generate(
    student: Student,
    texts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int | None = None,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Generated]:
    """Writes one text for each input.

    Args:
        student: put into evaluation mode for the duration.
        texts: inputs with their prefix; none is cut.
        max_new_tokens: longest output, the end token included.
        temperature: 0 always takes the most likely token; 1.5 is the paper's for negatives.
        top_p: only the most likely tokens that together reach this probability, 0 < top_p <= 1.
        top_k: only so many of the most likely tokens; None for all. transformers' `generate` takes 50 unless told
            otherwise.
        seeds: one per text, 0 to 2**64 - 1; the same seed gives the same text. Needed where temperature is above 0.
        batch_size: rows per batch, for machines short of memory; None takes as many as fit BATCH_TOKENS.
        on_progress: called with the number of texts done and the total.

    Returns:
        One for each text, in the order of `texts`.

    Raises:
        BadStudent: settings outside their ranges, seeds missing, or a text too long for the model.
    """
    _check(texts, max_new_tokens, temperature, top_p, top_k, seeds, batch_size)
    inputs = student.input_ids(texts)
    longest = max(map(len, inputs), default=0)
    _check_lengths(student, longest, max_new_tokens)
    order = sorted(range(len(inputs)), key=lambda index: len(inputs[index]), reverse=True)
    size = batch_size or max(1, BATCH_TOKENS // (longest + max_new_tokens))
    written: list[Generated] = [Generated("", (), "length")] * len(texts)
    training = student.training
    student.eval()
    try:
        with faster_linears(student):
            for start in range(0, len(order), size):
                batch = order[start : start + size]
                ids, mask = pad([inputs[index] for index in batch], student.pad_id)
                draws = None
                if seeds is not None and temperature > 0:
                    draws = uniforms([seeds[index] for index in batch], max_new_tokens)
                rows, lengths = _write(student, ids, mask, max_new_tokens, (temperature, top_p, top_k), draws)
                for index, generated in zip(batch, _read(student, rows, lengths), strict=True):
                    written[index] = generated
                if on_progress:
                    on_progress(min(start + size, len(order)), len(order))
    finally:
        student.train(training)
    return written


@torch.inference_mode()
def _write(
    student: Student,
    ids: Tensor,
    mask: Tensor,
    max_new_tokens: int,
    sampling: tuple[float, float, int | None],
    draws: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Writes one batch: (N, T) token ids, and (N,) their numbers, the end token included; `sampling` is (temperature,
    top_p, top_k)."""
    device = student.device
    encoded = student.encode(ids.to(device), mask.to(device))
    decoder = decoder_for(student, encoded)
    draws = None if draws is None else draws.to(device)
    rows = torch.full((len(ids), max_new_tokens), student.pad_id, device=device)  # (N, T)
    lengths = torch.full((len(ids),), max_new_tokens, device=device)
    live = torch.arange(len(ids), device=device)  # the rows that the decoder still has
    writing = torch.ones_like(live, dtype=torch.bool)  # and whether they are still being written
    tokens = encoded.start
    for step in range(max_new_tokens):
        logits = decoder.step(tokens)
        tokens = choose(logits, None if draws is None else draws[live, step], *sampling)
        rows[live, step] = tokens
        ended = (tokens == student.eos_id) & writing
        lengths[live[ended]] = step + 1
        writing &= ~ended
        left = int(writing.sum())
        if left == 0:
            break
        if left < KEEP_SHARE * len(live):
            kept = writing.nonzero().squeeze(1)
            decoder.keep(kept)
            live, tokens, writing = live[kept], tokens[kept], writing[kept]
    return rows.cpu(), lengths.cpu()


def _read(student: Student, rows: Tensor, lengths: Tensor) -> list[Generated]:
    """Texts of token ids."""
    ids = [row[:length] for row, length in zip(rows.tolist(), lengths.tolist(), strict=True)]
    texts = student.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return [
        Generated(text, row, "stop" if row[-1] == student.eos_id else "length")
        for text, row in zip(texts, ids, strict=True)
    ]


def _check(
    texts: Sequence[str],
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    top_k: int | None,
    seeds: Sequence[int] | None,
    batch_size: int | None,
) -> None:
    if max_new_tokens < 1:
        raise BadStudent(f"max_new_tokens must be at least 1, not {max_new_tokens}.")
    if not 0 <= temperature < float("inf"):
        raise BadStudent(f"temperature must be 0 (most likely token) or a positive number, not {temperature}.")
    if not 0 < top_p <= 1:
        raise BadStudent(f"top_p must be above 0 and at most 1 (all tokens), not {top_p}.")
    if top_k is not None and top_k < 1:
        raise BadStudent(f"top_k must be at least 1, or None for all tokens, not {top_k}.")
    if batch_size is not None and batch_size < 1:
        raise BadStudent(f"batch_size must be at least 1, not {batch_size}.")
    if temperature and seeds is None:
        raise BadStudent("Sampling needs `seeds`, one for each text; temperature 0 needs none.")
    if seeds is not None and len(seeds) != len(texts):
        raise BadStudent(f"There are {len(texts)} texts, but {len(seeds)} seeds; give one for each text.")
    if seeds is not None and len(seeds) and not 0 <= min(seeds) <= max(seeds) < 2**64:
        raise BadStudent(f"seeds must be from 0 to 2**64 - 1; these are from {min(seeds)} to {max(seeds)}.")


def _check_lengths(student: Student, longest: int, max_new_tokens: int) -> None:
    needed = longest + max_new_tokens if student.kind == "decoder-only" else max(longest, max_new_tokens)
    if student.max_positions is not None and needed > student.max_positions:
        raise BadStudent(
            f"The longest input has {longest} tokens; with max_new_tokens {max_new_tokens} the student needs {needed} "
            f"positions, it has {student.max_positions}. Lower max_new_tokens or leave the longest inputs out."
        )
