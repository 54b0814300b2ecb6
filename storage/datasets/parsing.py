"""Reads answers from sampled texts and gives each one canonical spelling: numbers, choices, class labels.

Each kind has a parser (text -> `Parsed`) and a normaliser (answer -> canonical spelling, or None). All kinds trust, in
this order:

1. the last readable mark meant for machines (####, \\boxed{}, <answer>);
2. the last readable sentence that announces an answer ("So the answer is ...");
3. what the text concludes without an announcement: the number that the last sentence with a number is about; for
   choices and labels, the option named by the last sentence that names any, if it names only one.

Parsers see the text and the choices, never the gold label. Normalising twice changes nothing. No text makes anything
here raise, and time is proportional to its length.

The code is in `statements.py` (where a text states its answer), `numbers_in_text.py` and `options_in_text.py`.
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
