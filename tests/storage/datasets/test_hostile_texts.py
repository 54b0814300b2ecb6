"""Texts made to hang a parser: 100,000 characters each, every one read within a moment."""

import time

import pytest

from storage.datasets.inference import NLI_LABELS
from storage.datasets.parsing import parse_choice, parse_number

LENGTH = 100_000
SECONDS = 2.0  # of the processor's time, so that a busy machine fails nothing; about 30 times what the slowest takes
PIECES = [
    "answer is ",
    "answer to the ",
    "is the answer ",
    "the correct ",
    "so ",
    "for example, if ",
    "Rationale: ",
    "#### ",
    "\\boxed{",
    "\\frac{",
    "\\text{",
    "<answer>",
    "**",
    "(",
    "x (a",
    "(a) ",
    "a(",
    "-",
    "1",
    "1,",
    "1/",
    "1. ",
    "9**9",
    "= ",
    ". ",
    " ",
    "\n",
    "cat ",
    "cat, ",
    "cat: no\n",
    "neutral and ",
    "[ ] ",
    "(a): no\n",
    "[",
    "9",
    "5!",
    "2^",
    "5²",
    "5 and ",
    "1 hour and ",
    "x = 5, ",
    "- 5\n",
    "not ",
    "not a but ",
    "neither a nor ",
    "all but ",
    "5 is not ",
    '{"answer": [',
    '{"answer": {',
    "\\boxed{5} and ",
    "\x00",
    "\ud800",
]


@pytest.mark.parametrize("piece", PIECES)
def test_repeated_piece(piece: str) -> None:
    text = piece * (LENGTH // len(piece))
    started = time.thread_time()
    parse_number(text)
    parse_choice(text, ("cat", "dog", "(a)"))
    NLI_LABELS.parse(text, ())
    assert time.thread_time() - started < SECONDS
