"""Answers that were once read wrongly and silently: each of a kind of its own."""

import pytest

from storage.datasets.inference import NLI_LABELS
from storage.datasets.parsing import DENIED, parse_choice, parse_number

PLACES = ("bank", "forest", "park")


@pytest.mark.parametrize(
    "text",
    [
        "**Given:** 8 nuts, 3 are eaten.\n**Question:** How many are left?\n**Solution:** 8 - 3 = 5\n**Answer:** 5",
        "### Given\n8 nuts, 3 are eaten.\n\n### Question\nHow many are left?\n\n#### 5",
        "已知：8个，吃了3个。\n问题：还剩多少？\n答案：5",
        "Gegeben: 8 Nüsse, 3 weg.\nFrage: Wie viele bleiben?\nAntwort: 5",
        "The answer is:\n\n1. 5 nuts",
        "The answer isn't 8, it's 5.",
        '{"answer": 5}',
    ],
)
def test_five_is_read(text: str) -> None:
    assert parse_number(text).answer == "5"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("答案是3万", "30000"),
        ("答案：1億", "100000000"),
        ("答えは1万2千円です", "12000"),
        ("정답은 3만 원입니다", "30000"),
        ("答案是1.5万", "15000"),
        ("答案是3千万", "30000000"),
        ("答えは3千5百円です", "3500"),
        ("答案是2百", "200"),
        ("정답은 3십", "30"),
        ("답은 100만", "1000000"),
        ("答案是26", "26"),
        ("คำตอบ: 1,234", "1234"),
        ("คำตอบคือ 1,234", "1234"),
        ('{"answer": 1,234}', "1234"),
        ('{"answer": 1,234, "why": "two"}', "1234"),
        ('{"answer": 12, "of": 34}', "12"),
        ("So the answer is 2 hundred thousand.", "200000"),
        ("So the answer is 5 hundred million.", "500000000"),
        ("So the answer is 2 x 3.", "6"),
    ],
)
def test_the_whole_number_is_read(text: str, answer: str) -> None:
    assert parse_number(text).answer == answer


@pytest.mark.parametrize(
    "text",
    [
        "The answer is 2x + 3.",
        "So the answer is 3x - 5.",
        r"So the answer is \boxed{\sqrt{16}}.",
        r"\boxed{2\sqrt{3}}",
        r"\boxed{3\pi}",
    ],
)
def test_half_of_an_expression_is_no_number(text: str) -> None:
    assert parse_number(text).answer is None


@pytest.mark.parametrize("text", ["The answer isn't bank.", "So the answer is never bank.", "The answer isn’t (a)."])
def test_what_is_denied_is_no_choice(text: str) -> None:
    parsed = parse_choice(text, PLACES)
    assert (parsed.answer, parsed.parse_error) == (None, DENIED)


def test_a_list_begins_with_its_number_not_with_a_code() -> None:
    assert NLI_LABELS.parse("The answer is:\n\n1. entailment", ()).answer == "entailment"
