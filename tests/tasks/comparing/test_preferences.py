"""Verdicts as judges write them, and what two orders add up to."""

import pytest

from tasks.comparing.preferences import Preferences, Preferred, added_up, judge_prompt, outcome, read_verdict


@pytest.mark.parametrize(
    ("text", "preferred"),
    [
        ("Verdict: A", "first"),
        ("A is shorter, but wrong.\n\nVerdict: B", "second"),
        ("**Verdict:** B.", "second"),
        ("verdict: tie", "tie"),
        ("Verdict: a tie", "tie"),
        ("Verdict: It is a tie.", "tie"),
        ("Verdict: draw", "tie"),
        ("Verdict - Explanation A is better", "first"),
        ("Verdict: [[B]]", "second"),
        ('It says "Verdict: A", which is no reason.\nVerdict: B', "second"),
        ("A", "first"),
        (" [[b]]. ", "second"),
        ("Tie.", "tie"),
        ("", None),
        ("I cannot say.", None),
        ("Verdict: C", None),
        ("Verdict: Apples are counted wrongly", None),
        ("A is better than B", None),
    ],
)
def test_verdicts(text: str, preferred: Preferred | None) -> None:
    assert read_verdict(text) == preferred


def test_a_preference_counts_only_if_both_orders_agree() -> None:
    assert outcome("first", "second") == "win"
    assert outcome("second", "first") == "loss"
    for place in ("first", "second", "tie", None):
        assert outcome(place, place) == "tie"
    assert outcome("first", "tie") == outcome(None, "second") == outcome("tie", "first") == "tie"


def test_they_are_added_up() -> None:
    verdicts: list[tuple[Preferred | None, Preferred | None]] = [
        ("first", "second"), ("second", "first"), ("first", "first"), (None, "second"), ("first", "second"),
    ]  # fmt: skip
    assert added_up(verdicts, same=3, refused=2) == Preferences(2, 5, 1, same=3, unread=1, refused=2)


def test_the_prompt_shows_all_of_it() -> None:
    prompt = judge_prompt("Which one?", ("lawn", "moon"), "because of X", "because of Y")
    asked = prompt.messages()[-1]["content"]
    assert asked.index("(b) moon") < asked.index("because of X") < asked.index("because of Y")
    assert prompt.plain.startswith(prompt.system)
