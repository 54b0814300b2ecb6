"""Choices and class labels as teachers really write them."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.datasets.inference import NLI_LABELS
from storage.datasets.parsing import (
    EMPTY_TEXT,
    NO_ANSWER,
    SEVERAL_ANSWERS,
    LabelReader,
    normalise_choice,
    parse_choice,
)

PLACES = ("seattle", "large house", "wooded area", "house", "math problem")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Deer live there. So the answer is (c) wooded area.", "wooded area"),
        ("The correct answer is **(E) math problem**. It has numbers, unlike a house.", "math problem"),
        ("Hence the answer is (b)", "large house"),
        ("hence the answer is Answer: (c)", "wooded area"),
        ("Hence the answer is choice (c).", "wooded area"),
        ("Answer: C", "wooded area"),
        ("The answer is large house.", "large house"),
        ("The answer is a house.", "house"),
        ("The answer must be a place. Of the choices only a house is. So the answer is (d) house.", "house"),
        ('The most likely answer to the question "Where? A house?" is **(A) seattle**. Not a house.', "seattle"),
        ("Seattle is the answer.", "seattle"),
        ("(b) large house\n\nIt has many rooms, not like a house.", "large house"),
        ("wooded area", "wooded area"),
        ("Deer like wooded areas.", "wooded area"),
        ("The best option is (a) seattle, since it rains.", "seattle"),
        ("The correct answer is (b) wooded area", "wooded area"),  # words before letters
        ("The wrong answer is (a). The answer is (d).", "house"),
    ],
)
def test_choice(text: str, answer: str) -> None:
    parsed = parse_choice(text, PLACES)
    assert (parsed.answer, parsed.parse_error) == (answer, None)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", EMPTY_TEXT),
        ("People like to travel.", NO_ANSWER),
        ("The answer is (z).", NO_ANSWER),
        ("So the answer is either (a) seattle or (d) house.", SEVERAL_ANSWERS),
        ("It could be seattle or the house.", SEVERAL_ANSWERS),
        ("Deer are animals that people see now and then.", NO_ANSWER),
    ],
)
def test_no_choice(text: str, error: str) -> None:
    parsed = parse_choice(text, PLACES)
    assert (parsed.answer, parsed.parse_error) == (None, error)


def test_choice_statement_leaves_the_rationale() -> None:
    assert parse_choice("Deer live there. So the answer is (c) wooded area.", PLACES).rationale == "Deer live there."
    assert parse_choice("(c)", PLACES).rationale == ""


def test_choices_listed_twice_are_one_answer() -> None:
    twice = ("back and", "reverse", "back  and")
    assert parse_choice("The answer is (c) back and.", twice).answer == "back and"
    assert normalise_choice("C", twice) == normalise_choice("a", twice) == "back and"


@pytest.mark.parametrize(
    ("answer", "choices", "normal"),
    [
        ("LARGE  house", PLACES, "large house"),
        ("b", PLACES, "large house"),
        ("B", PLACES, "large house"),
        ("(b)", PLACES, "large house"),
        ("house.", PLACES, "house"),
        ("nowhere", PLACES, None),
        ("f", PLACES, None),
        ("", PLACES, None),
        ("a", ("b", "a"), "a"),  # a choice's own text goes before letters
        ("New York", ("Paris", "new york"), "new york"),
        ("anything  goes", (), "anything goes"),
    ],
)
def test_normalise_choice(answer: str, choices: tuple[str, ...], normal: str | None) -> None:
    assert normalise_choice(answer, choices) == normal


texts = st.text(max_size=20)


@given(texts, st.lists(texts.filter(str.strip), min_size=2, max_size=6).map(tuple))
def test_normalise_choice_is_idempotent(answer: str, choices: tuple[str, ...]) -> None:
    normal = normalise_choice(answer, choices)
    if normal is not None:
        assert normalise_choice(normal, choices) == normal


@given(st.lists(texts.filter(str.strip), min_size=2, max_size=6).map(tuple), st.data())
def test_every_choice_is_its_own_answer(choices: tuple[str, ...], data: st.DataObject) -> None:
    choice = data.draw(st.sampled_from(choices))
    normal = normalise_choice(choice, choices)
    assert normal is not None
    assert normal.split() == next(c for c in choices if normalise_choice(c, choices) == normal).split()


@given(st.text(max_size=300), st.lists(texts, max_size=5).map(tuple))
@example("A", ("",))
@example("So the answer is (b).", ("pond", " "))
def test_any_text_gives_a_choice_or_a_reason(text: str, choices: tuple[str, ...]) -> None:
    parsed = parse_choice(text, choices)
    assert (parsed.answer is None) != (parsed.parse_error is None)
    if parsed.answer is not None:
        assert normalise_choice(parsed.answer, choices) == parsed.answer


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The correct answer is **contradiction**. The premise says so; it does not entail it.", "contradiction"),
        ("The answer is **Neutral**.", "neutral"),
        ("Answer: **Entailment**", "entailment"),
        ("(b) neutral\n\nIt does not contradict the premise.", "neutral"),
        ("Hence the answer is (b)", "neutral"),
        ("The premise contradicts the hypothesis.", "contradiction"),
        ("The hypothesis is neither entailed nor contradicted by the premise.", "neutral"),
        ("So the answer is yes.", "entailment"),
        ("So the answer is no.", "contradiction"),
        ("contradiction\n\nThe song was a hit. This entails much.", "contradiction"),
        (
            "The answer is **neutral**. For example, if the sky were red, then the answer is contradiction.",
            "neutral",
        ),
    ],
)
def test_label(text: str, label: str) -> None:
    assert NLI_LABELS.parse(text, ()).answer == label


@pytest.mark.parametrize("text", ["", "A golfer is a human.", "No, he sits.", "It may entail or contradict it."])
def test_no_label(text: str) -> None:
    parsed = NLI_LABELS.parse(text, ())
    assert parsed.answer is None
    assert parsed.parse_error in (EMPTY_TEXT, NO_ANSWER, SEVERAL_ANSWERS)


@pytest.mark.parametrize(
    ("answer", "label"),
    [("0", "entailment"), ("1", "neutral"), ("2.0", "contradiction"), ("Contradicts.", "contradiction"), ("3", None)],
)
def test_normalise_label(answer: str, label: str | None) -> None:
    assert NLI_LABELS.normalise(answer, ()) == label


@given(st.text(max_size=30))
def test_normalise_label_is_idempotent(answer: str) -> None:
    label = NLI_LABELS.normalise(answer, ())
    if label is not None:
        assert NLI_LABELS.normalise(label, ()) == label


def test_one_word_for_two_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="'urgent' means both 'low' and 'high'"):
        LabelReader(("low", "high"), {"low": ["urgent"], "high": ["Urgent!"]})
