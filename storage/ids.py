"""Content ids: the same content always gets the same id, so "what is missing" is a set difference.

An id is 12 characters of base 62 (71 bits of BLAKE2b). Twelve is not an accident: DuckDB keeps strings of up to
12 bytes inline, which makes grouping ten million samples by id about twice as fast as with longer ids. Two of a
hundred million ids collide with a probability of about 2e-6.
"""

import hashlib
import json
from typing import Any

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LENGTH = 12


def content_id(*parts: Any) -> str:
    """The id of some JSON-serialisable content. Order matters; `("a", "bc")` and `("ab", "c")` differ.

    Raises:
        TypeError: a part is not JSON-serialisable.
    """
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    number = int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest(), "big")
    characters = []
    for _ in range(LENGTH):
        number, digit = divmod(number, 62)
        characters.append(ALPHABET[digit])
    return "".join(characters)


def example_id(dataset: str, split: str, question: str, choices: tuple[str, ...] | list[str]) -> str:
    """The id of a question: its dataset, split and inputs. Not its label, which may arrive or be corrected later."""
    return content_id("example", dataset, split, question, list(choices))


def prompt_hash(prompt: Any) -> str:
    """The id of everything a teacher reads for one question (messages or plain text, and the stop strings)."""
    return content_id("prompt", prompt)


def teacher_sample_id(request: dict[str, Any], sample_index: int) -> str:
    """The id of one sample of one request. `request` holds all that decides what is sampled: example, model and its
    revision, prompt hash, temperature, top_p, max_tokens, run seed; not how it is sent (retries, concurrency)."""
    return content_id("teacher", request, sample_index)


def recorded_sample_id(example: str, teacher: str, text: str, occurrence: int) -> str:
    """The id of one recorded sample. `occurrence` counts identical texts of one teacher on one example from 0, so
    that five equal samples stay five samples and importing the file again still adds nothing."""
    return content_id("recorded", example, teacher, text, occurrence)


def rationale_hash(rationale: str) -> int:
    """64 bits of a rationale's text, whitespace folded, as a signed integer: equal texts count as one target."""
    text = " ".join(rationale.split())
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
