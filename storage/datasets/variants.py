"""The prompts with which a teacher writes variants of a question, and how its reply is read.

`rephrased` is the same question in other words, with the same answer; `changed` is another question of the same kind,
whose answer is its own. Choices stay as they are.
"""

import re
from typing import Literal

from storage.datasets.definition import Prompt
from storage.datasets.prompts import CLOSING, render_question

VariantKind = Literal["rephrased", "changed"]
VARIANT_KINDS: tuple[VariantKind, ...] = ("rephrased", "changed")
MOST_TIMES_LONGER = 4
"""A reply so many times longer than its source, and longer than LEAST_LONG characters, is no variant of it."""
LEAST_LONG = 400

_SYSTEM = "You write exercises."
_FORM = (
    "Keep its form: lines that begin with a word and a colon begin with the same word again. Write no solution and no "
    "answer. Reply with the new question alone."
)
_CHOICES = " The answer choices stay as they are; do not repeat them."
_TASKS: dict[VariantKind, str] = {
    "rephrased": "Say this question in other words. Keep every fact and every number, so that its answer stays the "
    "same.",
    "changed": "Write a new question of the same kind as this one, with other people, things and numbers, so that its "
    "answer is another one.",
}
_LABEL = re.compile(r"^(?:(?:the |your )?(?:new|rephrased|rewritten) question|question|q)\s*:\s*", re.IGNORECASE)
_FIELD = re.compile(r"^([A-Z][A-Za-z ]{0,30}):", re.MULTILINE)


def variant_prompt(kind: VariantKind, question: str, choices: tuple[str, ...]) -> Prompt:
    """What the teacher is asked to write a variant."""
    task = f"{_TASKS[kind]} {_FORM}{_CHOICES if choices else ''}"
    asked = f"{task}\n\nQuestion:\n{render_question(question, choices)}"
    return Prompt(_SYSTEM, (), asked, plain=f"{_SYSTEM}\n{asked}\n\nNew question:\n", stop=("\n\n",))


def read_variant(text: str, question: str) -> str | None:
    """The question in a reply; None if it is none.

    Args:
        text: what the teacher wrote, without its thought.
        question: the source.
    """
    found = text.strip().removeprefix("```text").strip("`").strip()
    found = _LABEL.sub("", found).strip()
    if len(found) > 1 and found[0] == found[-1] and found[0] in "\"'":
        found = found[1:-1].strip()
    if not found or CLOSING.strip().casefold() in found.casefold():
        return None
    if len(found) > max(LEAST_LONG, MOST_TIMES_LONGER * len(question)):
        return None
    if _FIELD.findall(found) != _FIELD.findall(question):
        return None
    return found
