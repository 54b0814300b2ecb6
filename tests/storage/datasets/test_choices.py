"""Choices in every layout in which people write them, and which of them a gold label names."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.datasets.choices import Choices, read_choices, split_lettered
from storage.errors import BadFile

NAMED = Choices(("a hall", "hall", "barn"), {"a": "a hall", "b": "hall", "c": "barn"})
LETTERS, TEXTS = ["A", "B", "C"], ["a hall", "hall", "barn"]


@pytest.mark.parametrize(
    "value",
    [
        {"label": LETTERS, "text": TEXTS},
        {"text": TEXTS, "label": LETTERS},
        [{"label": name, "text": text} for name, text in zip(LETTERS, TEXTS, strict=True)],
        [{"text": text, "label": f" {name} "} for name, text in zip(LETTERS, TEXTS, strict=True)],
        dict(zip(LETTERS, TEXTS, strict=True)),
        dict(zip(LETTERS, TEXTS, strict=True)) | {"D": None},
        "(A) a hall (B) hall (C) barn",
        str({"label": np.array(LETTERS, dtype=object), "text": np.array(TEXTS, dtype=object)}),
    ],
)
def test_every_layout_with_names(value: Any) -> None:
    assert read_choices(value) == NAMED
    if not isinstance(value, str):
        assert read_choices(json.dumps(value)) == NAMED
        assert read_choices(str(value)) == NAMED


@pytest.mark.parametrize(
    "value", [TEXTS, tuple(TEXTS), {"text": TEXTS}, {"text": TEXTS, "label": []}, "a hall|hall|barn"]
)
def test_every_layout_without_names(value: Any) -> None:
    assert read_choices(value) == Choices(NAMED.texts)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("B", "hall"), ("b", "hall"), ("(B)", "hall"), ("B.", "hall"), ("hall", "hall"), ("A hall", "a hall"),
        ("d", None), ("halls", None), ("1", None),
    ],
)  # fmt: skip
def test_an_answer_is_a_name_or_a_text(answer: str, text: str | None) -> None:
    assert NAMED.named(answer) == text


def test_a_name_counts_before_a_text_and_wherever_it_stands() -> None:
    shuffled = read_choices({"label": ["2", "1", "3"], "text": ["3", "2", "1"]})
    assert [shuffled.named(name) for name in ("1", "2", "3", "2.0")] == ["2", "3", "1", "3"]


PRINTERS: dict[str, Callable[[list[str]], str]] = {
    "json": json.dumps,
    "json in UTF-8": lambda texts: json.dumps(texts, ensure_ascii=False),
    "python": str,
    "numpy": lambda texts: str(np.array(texts, dtype=object)),
    "data frame": lambda texts: cell_of_a_data_frame(np.array(texts, dtype=object)),
}


def cell_of_a_data_frame(value: Any) -> str:
    """What pandas writes into a CSV cell for a value."""
    written: str = pd.DataFrame({"a": [value]}).to_csv(index=False)
    return list(csv.reader(io.StringIO(written, newline="")))[1][0]


@pytest.mark.parametrize("printer", ["json", "json in UTF-8", "python", "numpy", "data frame"])
@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(lambda text: f"x{text}y"),
        min_size=2,
        max_size=6,
    )
)
@example(texts=["it's", 'say "x"', "back\\slash", "a', 'b", "array([1])", "'] ["])
@example(texts=["x" * 100] * 6)
def test_a_printed_list_is_read_back(printer: str, texts: list[str]) -> None:
    assert read_choices(PRINTERS[printer](texts)).texts == tuple(text.strip() for text in texts)


@given(st.text(st.sampled_from("[]{}'\",:()array dtype=object\\AB \n"), max_size=60))
@example("[" * 5000)
@example("['a' * 9]")
@example("[__import__('os')]")
@example("{'label': ['A'], 'text': [open('x')]}")
def test_any_text_is_choices_or_refused(text: str) -> None:
    try:
        choices = read_choices(text)
    except BadFile:
        return
    assert len(choices.texts) >= 2


@pytest.mark.parametrize(
    ("text", "texts", "names"),
    [
        ("sea; land, wet;", ("sea", "land, wet"), []),
        ("a) sea\nb) land\n", ("sea", "land"), ["a", "b"]),
        ("1. sea; 2. land; 3. sky", ("sea", "land", "sky"), ["1", "2", "3"]),
        ("b) sea\na) land", ("b) sea", "a) land"), []),  # no order: part of the texts
        ("sea; deep|land", ("sea; deep", "land"), []),
    ],
)
def test_lines_and_semicolons_separate_choices_where_no_bar_does(
    text: str, texts: tuple[str, ...], names: list[str]
) -> None:
    choices = read_choices(text)
    assert (choices.texts, list(choices.names)) == (texts, names)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"label": ["A"], "text": TEXTS}, "choices have 3 texts and 1 labels; there must be as many"),
        ({"label": ["A", "a", "B"], "text": TEXTS}, "choices have a label twice: a, a, b"),
        (
            [{"label": "A"}, {"label": "B"}],
            'each of choices must be a text, or an object such as {"label": "A", "text": "cellar"}',
        ),
        ("['a' + 'b']", "choices \"['a' + 'b']\" begin like a JSON list but cannot be read as one"),
        ("{oops}", "choices '{oops}' begin like a JSON object but cannot be read as one"),
        ({"A": "one"}, "choices must be at least two texts, none of them empty; got ['one']"),
        ("(A) one", "choices must be at least two texts, none of them empty; got ['(A) one']"),
    ],
)
def test_complaints(value: Any, complaint: str) -> None:
    with pytest.raises(BadFile) as caught:
        read_choices(value)
    assert str(caught.value) == complaint


@pytest.mark.parametrize(
    ("text", "question", "choices"),
    [
        ("Why? (A) heat (B) cold", "Why?", ["heat", "cold"]),
        ("It melts when (1) hot.  (2) cold (3) wet", "It melts when", ["hot.", "cold", "wet"]),
        ("Vitamin (A) or (B)? (A) this (B) that (C) both", "Vitamin (A) or (B)?", ["this", "that", "both"]),
        ("f(A) (B) x (C) y", "f(A) (B) x (C) y", []),
        ("Only (A) one", "Only (A) one", []),
    ],
)
def test_choices_at_the_end_of_a_question(text: str, question: str, choices: list[str]) -> None:
    head, found = split_lettered(text)
    assert (head, [choice["text"] for choice in found]) == (question, choices)
