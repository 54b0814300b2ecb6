"""Reads answers from sampled texts and gives each one canonical spelling: numbers, choices, class labels.

Each kind has a parser (text -> `Parsed`) and a normaliser (answer -> canonical spelling, or None). All kinds trust, in
this order:

1. the last readable mark meant for machines (####, \\boxed{}, <answer>, an answer field of JSON);
2. the last readable sentence that announces an answer ("So the answer is ...");
3. what the text concludes without an announcement: the number that the last sentence with a number is about; for
   choices and labels, the option named by the last sentence that names any, if it names only one.

Parsers see the text and the choices, never the gold label. Normalising twice changes nothing. No text makes anything
here raise, and time is proportional to its length.

What stands in a thought (`<think>`) is a draft, and what follows a new question belongs to that one (`answering_part`).
A text that settles on nothing has no answer: it hedges, denies, lists several, gives a range, or breaks off. So a part
of what is said is never read for the whole.

The code is in `statements.py`, `other_languages.py` and `json_in_text.py` (where a text states its answer),
`numbers_in_text.py` with `written_numbers.py`, `spelled_numbers.py`, `compound_units.py` and `several_numbers.py`,
`options_in_text.py` with `spellings.py` and `verdicts.py`, and `negation.py`.
"""

from storage.datasets.numbers_in_text import normalise_number, parse_number
from storage.datasets.options_in_text import LabelReader, normalise_choice, parse_choice
from storage.datasets.statements import (
    DENIED,
    EMPTY_TEXT,
    NO_ANSWER,
    NO_SINGLE_NUMBER,
    SEVERAL_ANSWERS,
    UNFINISHED_THOUGHT,
)

__all__ = [
    "DENIED",
    "EMPTY_TEXT",
    "NO_ANSWER",
    "NO_SINGLE_NUMBER",
    "SEVERAL_ANSWERS",
    "UNFINISHED_THOUGHT",
    "LabelReader",
    "normalise_choice",
    "normalise_number",
    "parse_choice",
    "parse_number",
]
