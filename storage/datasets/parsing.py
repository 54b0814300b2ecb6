"""Reads answers out of teachers' texts, and brings answers to one spelling: numbers, choices, class labels.

For each kind there is a parser (text -> `Parsed`) and a normaliser (answer -> its one spelling, or None). The
order of trust is the same for every kind:

1. the last statement that exists for machines and can be read (####, \\boxed{}, <answer>);
2. the last sentence that announces an answer and can be read ("So the answer is ...");
3. what the text concludes without announcing it: the number that the last sentence with one is about; for choices
   and labels the only option that the last sentence naming any names.

Parsers see the text and the choices, never the gold label. A normaliser applied to its own output changes
nothing. Nothing here raises for any text, and time grows in proportion to the length of the text.

This module is the door; the rooms are `statements.py` (where a text says what its answer is), `numbers_in_text.py`
and `options_in_text.py`.
"""

from storage.datasets.numbers_in_text import normalise_number, parse_number
from storage.datasets.options_in_text import LabelReader, normalise_choice, parse_choice
from storage.datasets.statements import EMPTY_TEXT, NO_ANSWER, SEVERAL_ANSWERS

__all__ = [
    "EMPTY_TEXT",
    "NO_ANSWER",
    "SEVERAL_ANSWERS",
    "LabelReader",
    "normalise_choice",
    "normalise_number",
    "parse_choice",
    "parse_number",
]
