"""The thought before a text and the final text behind it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.thoughts import Split, explains, split_thought

PAIRS = [
    ("<think>", "</think>"),
    ("<THINK>\n", "\n</THINK>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ('<think lang="en">', "</think >"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel>thought\n", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
]
WORDS = st.text(st.sampled_from("abc 12=.\n"), min_size=1).map(str.strip).filter(bool)


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_the_final_text_stands_behind_the_mark_that_ends_the_thought(opening: str, closing: str) -> None:
    draft, said = "9 - 4 = 6? No, 5.", "Five are left."
    assert split_thought(f"{opening}{draft}{closing}\n\n{said}") == Split(draft, said)
    assert split_thought(f"{draft}{closing}{said}") == Split(draft, said), "a template wrote the opening mark"
    assert split_thought(f"{opening}{draft}") == Split(draft, None), "never ended"
    assert split_thought(f"{opening}a{closing}b{opening}{draft}{closing}{said}").final == said
    assert split_thought(f"{opening}{draft}{closing}{said}{opening}or").final is None
    assert split_thought(f"{opening}{draft}{closing}") == Split(draft, "")
    assert split_thought(f"{said}{opening}{draft}{closing}") == Split(draft, said), "answered first"
    assert split_thought(f"{opening} {closing}{said}") == Split(None, said), "thought about nothing"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("analysisNine less four.assistantfinalFive.", Split("Nine less four.", "Five.")),
        ("Here is my thought process: 9 - 4. Here is my response: 5.", Split("9 - 4.", "5.")),
        ("Here is my thought process: 9 - 4. The answer is 5.", None),
        ("analysis of the question: 9 - 4 = 5", None),
        ("I think > 5, and [think] of <b>thought</b>", None),
        ("", None),
    ],
)
def test_words_are_marks_only_where_they_must_be(text: str, parts: Split | None) -> None:
    assert split_thought(text) == (parts or Split(None, text))


@given(WORDS, WORDS, st.sampled_from(PAIRS))
def test_what_is_put_together_is_taken_apart(draft: str, said: str, marks: tuple[str, str]) -> None:
    assert split_thought(f"{marks[0]}{draft}{marks[1]}{said}") == Split(draft, said)
    assert split_thought(said) == Split(None, said)


@given(st.lists(st.sampled_from(["<think>", "</think>", "[THINK]", "<|channel|>", "final<|message|>", "a", " "])))
def test_no_order_of_marks_raises_and_none_is_left(pieces: list[str]) -> None:
    parts = split_thought("".join(pieces))
    assert "think>" not in f"{parts.thought}{parts.final}" or (
        parts.thought is None and "think>" not in "".join(pieces)
    )


@pytest.mark.parametrize("piece", ["<think ", "<think>", "</think>", "<|channel|>analysis", "analysis", "thought:"])
def test_a_hostile_text_takes_little_time(piece: str) -> None:
    start = time.perf_counter()
    split_thought(piece * 100_000)
    split_thought("Here is my thought process:" + piece * 100_000)
    assert time.perf_counter() - start < 5


def test_a_rationale_explains_from_a_few_words_on() -> None:
    assert not explains("She keeps 43 apples.")
    assert not explains("**43**")
    assert explains("48 - 5 = 43, so she keeps 43 apples.")
    assert explains("她有四十八个苹果给了五个还剩四十三个")
    assert not explains("四十三个")
