"""Reads a teacher's sample: what it thought, what its rationale is, and which answer it gives, if it gives one.

The answer is read from the final text, never from a thought. A text that was cut off has one only where it announced it
before: the last number of half a calculation is no answer.
"""

from dataclasses import dataclass, replace
from typing import Literal

from storage.datasets.definition import Dataset, Parsed
from storage.datasets.statements import UNFINISHED_THOUGHT, find_statements
from storage.thoughts import explains, split_thought

Rationale = Literal["auto", "final", "thought", "both"]
CUT_OFF = "cut off"
ONLY_A_THOUGHT = "only a thought"
TOO_LONG = ("length", "max_tokens", "model_length")
FILTERED = ("content_filter", "safety")
CUT_SHORT = (*TOO_LONG, *FILTERED)
"""The finish reasons of an unfinished text: max_tokens (or the context's length) was reached, or a filter ended it."""


@dataclass(frozen=True)
class Reading:
    """What was read from a sample.

    Attributes:
        thought: what the teacher thought before its final text; None where it shows no thought.
        parsed: the rationale that students learn from, and the answer.
    """

    thought: str | None
    parsed: Parsed


def read_sample(
    dataset: Dataset,
    choices: tuple[str, ...],
    text: str,
    *,
    thought: str | None = None,
    finish_reason: str | None = None,
    rationale: Rationale = "auto",
) -> Reading:
    """Reads one sample.

    Args:
        text: exactly as sampled; it may begin with a thought.
        thought: what came apart from the text; None or empty where nothing did.
        finish_reason: why the text ends there; None where nobody says.
        rationale: what students learn from: the `final` text, the `thought`, `both`, or `auto`: the final text where it
            explains, else the thought.
    """
    split = split_thought(text)
    thought = thought or split.thought
    final = split.final or ""
    if (thought and not final) or split.final is None:
        parsed = Parsed("", None, UNFINISHED_THOUGHT if split.final is None else ONLY_A_THOUGHT)
    else:
        parsed = dataset.parse(final, choices)
    if finish_reason in CUT_SHORT and not _announced(dataset, choices, final, parsed.answer):
        parsed = Parsed(parsed.rationale, None, CUT_OFF)
    if thought is None or (rationale == "auto" and explains(parsed.rationale)):
        return Reading(thought, parsed)
    # The thought's own closing answer statement is left out, as the final text's is.
    parts = [dataset.parse(thought, choices).rationale] if rationale != "final" else []
    parts += [parsed.rationale] if rationale in ("final", "both") else []
    return Reading(thought, replace(parsed, rationale="\n\n".join(part for part in parts if part)))


def _announced(dataset: Dataset, choices: tuple[str, ...], text: str, answer: str | None) -> bool:
    """Whether the text says in a sentence of its own, which is not the unfinished last one, that this is its answer."""
    if answer is None:
        return False
    whole = (
        text[statement.start : statement.end]
        for statement in find_statements(text)
        if text[statement.end :].strip() or text[: statement.end].rstrip()[-1:] in tuple(".!?>}")
    )
    return any(dataset.parse(statement, choices).answer == answer for statement in whole)
