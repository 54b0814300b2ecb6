"""Content ids: equal content has an equal id, so "what is missing" is a set difference.

An id is 12 characters of base 62 (71 bits of BLAKE2b). DuckDB keeps strings of up to 12 bytes inline, so it groups
ten million samples by id about twice as fast as by longer ids. Among a hundred million ids, the probability that any
two collide is about 2e-6.
"""

import hashlib
import json
from typing import Any

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LENGTH = 12


def content_id(*parts: Any) -> str:
    """The id of JSON-serialisable content. Order matters, and `("a", "bc")` differs from `("ab", "c")`.

    Raises:
        TypeError: a part is not JSON-serialisable.
    """
    return _spelt(_hash(json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))))


class RowsId:
    """`content_id(kind, json.dumps(rows, ensure_ascii=False, sort_keys=True))`, without all rows in memory."""

    def __init__(self, kind: str) -> None:
        self._state = _hash(f'[{json.dumps(kind, ensure_ascii=False)},"[')
        self._rows = 0

    def add(self, row: Any) -> None:
        """Takes the next row, which is JSON-serialisable."""
        text = (", " if self._rows else "") + json.dumps(row, ensure_ascii=False, sort_keys=True)
        escaped = json.dumps(text, ensure_ascii=False)[1:-1]  # character by character, so pieces give the whole
        self._state.update(escaped.encode("utf-8", "surrogatepass"))
        self._rows += 1

    def id(self) -> str:
        """The id of the rows so far."""
        state = self._state.copy()
        state.update(b']"]')
        return _spelt(state)


def _hash(text: str) -> "hashlib.blake2b":
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16)


def _spelt(state: "hashlib.blake2b") -> str:
    number = int.from_bytes(state.digest(), "big")
    characters = []
    for _ in range(LENGTH):
        number, digit = divmod(number, 62)
        characters.append(ALPHABET[digit])
    return "".join(characters)


def example_id(dataset: str, split: str, question: str, choices: tuple[str, ...] | list[str]) -> str:
    """The id of a question: its dataset, split and inputs, but not its label, which may arrive or change later."""
    return content_id("example", dataset, split, question, list(choices))


def question_id(question: str, choices: tuple[str, ...] | list[str]) -> str:
    """The id of a question's inputs, whatever dataset and split they are stored in."""
    return content_id("question", question, list(choices))


def prompt_hash(prompt: Any) -> str:
    """The id of all that a teacher gets for one question: messages or plain text, and stop strings."""
    return content_id("prompt", prompt)


def teacher_sample_id(request: dict[str, Any], sample_index: int) -> str:
    """The id of one sample of one request.

    Args:
        request: all that decides what is sampled (example, model and its revision, prompt hash, temperature, top_p,
            max_tokens, run seed) but not how it is sent (retries, concurrency).
        sample_index: counts the samples of the request from 0.
    """
    return content_id("teacher", request, sample_index)


def recorded_sample_id(example: str, teacher: str, text: str, occurrence: int, thought: str | None = None) -> str:
    """The id of one recorded sample.

    Args:
        occurrence: counts identical samples of one teacher on one example from 0: five equal ones stay five, and
            importing the file again adds none.
        thought: what is recorded apart from the text; None where nothing is.
    """
    recorded = (example, teacher, text) if thought is None else (example, teacher, text, thought)
    return content_id("recorded", *recorded, occurrence)


def rationale_hash(rationale: str) -> int:
    """64 bits of a rationale, whitespace folded, as a signed integer: texts with equal hashes are one target."""
    text = " ".join(rationale.split())
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
