"""A text is found wherever it is quoted, however that escaped it."""

import html
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.prefect.report import escaped as markdown
from flows.report.document import escaped as in_html
from tasks.forgetting.quotes import GONE, Quotes

QUESTION = 'Jane Doe (born 1999) of "Büro\u00adstraße 7" has 3 < 4 nuts & *many* apples;\nhow many_ does she have?'
ESCAPES = [
    str, repr, json.dumps, lambda text: json.dumps(json.dumps({"a": text})), html.escape, in_html, markdown,
    lambda text: json.dumps(markdown(text)), lambda text: " ".join(text.split()),
]  # fmt: skip


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize(
    "text", [QUESTION, "What is 2 + 2?", "谁有三个苹果,谁又给了她两个苹果?她一共有几个苹果呢请回答"]
)
def test_a_text_is_found_in_what_quotes_it(text: str, escape: object) -> None:
    quoting = f"... <b>{escape(text)}</b> ..."  # type: ignore[operator]
    assert Quotes([text]).in_(quoting)
    assert not Quotes([text]).in_("... <b>something else, and quite as long as the text would be</b> ...")


@given(st.text(min_size=1), st.lists(st.text(), max_size=60))
def test_every_text_is_found_among_many(text: str, others: list[str]) -> None:
    quotes = Quotes([text, *others])
    if Quotes([text]) and any(map(str.isalnum, text)):  # a text of signs alone may be no more than an escape
        assert quotes.in_(f"before {json.dumps(text)} after")
        assert quotes.in_(f"before {html.escape(text)} after")


def test_among_many_one_is_found_as_among_few() -> None:
    texts = [f"Question number {number} asks for the sum of all numbers up to {number}." for number in range(200)]
    quotes = Quotes(texts)
    assert quotes.in_(json.dumps({"question": texts[150]}))
    assert not quotes.in_(json.dumps({"question": "Question number 150 asks for the product of some numbers."}))


def test_a_short_text_is_no_part_of_a_word() -> None:
    quotes = Quotes(["cat", ""])
    assert quotes.in_("The Cat.")
    assert not quotes.in_("concatenate the categories")


def test_the_beginning_of_a_shortened_text_is_enough() -> None:
    assert Quotes(["a long text " * 100]).in_(("a long text " * 100)[:300] + "…")


def test_only_the_innermost_string_goes() -> None:
    event = {"key": "rationales", "data": json.dumps({"rows": [QUESTION, "kept"]}), "n": 3, "none": None}
    gone = Quotes([QUESTION]).removed(event)
    assert gone["key"], gone["n"] == ("rationales", 3)
    assert json.loads(gone["data"]) == {"rows": [GONE, "kept"]}
