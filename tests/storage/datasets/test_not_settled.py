"""Texts that a person would not take the read answer from: refusals, equations, amounts that lean on another, signs."""

import pytest

from storage.datasets.parsing import (
    NO_ANSWER,
    NO_SINGLE_NUMBER,
    LabelReader,
    parse_choice,
    parse_number,
)

DEGREES = ("-8", "8", "0.8", "80")


@pytest.mark.parametrize(
    "text",
    [
        *("There is no way of knowing; she moved in 1994.", "We cannot say, as 7 pages are lost."),
        *("It's unclear how many of the 9 went.", "The story does not mention it, only 7 sheep.", "N/A (7 pages lost)"),
        *(
            "The answer is unknown; 7 is a guess.",
            "Answer: N/A, 7 pages are lost",
        ),
    ],
)
def test_a_refusal_holds_no_number(text: str) -> None:
    parsed = parse_number(text)
    assert (parsed.answer, parsed.parse_error) == (None, NO_ANSWER)


def test_a_doubt_behind_a_result_is_an_aside() -> None:
    text = "She had 17 fish and has 8, so 17 - 8 = 9 are gone. It is unclear whether a cat ate them."
    assert parse_number(text).answer == "9"
    assert parse_number("There are 9 left. We cannot say what their colours are.").answer == "9"


@pytest.mark.parametrize(
    "text",
    [
        *("The answer is 4y = 9.", "So 4y = 9.", "The answer is y² = 9.", "The answer is y/4 = 9.", r"\boxed{|y| = 9}"),
        *("The answer is y - 7 = 9.", r"\boxed{\frac{y}{4} = 9}"),
        *(
            "So the answer is 7 more than 9.",
            "The answer is 9 less 7.",
            "The answer is 30% of 90.",
            "The answer is 3/4 of 9.",
        ),
        *(
            "The answer is more than 9.",
            "The answer is under $9.",
            "The answer is +44 20 794600.",
            "So the answer is 555 0199.",
        ),
        *("The answer is Gate 9B.", "The answer is 9T.", "Answer: 9B"),
        *("We see 7 ducks and 9 geese.", "The box holds 7 red, 8 blue and 9 green pens."),
    ],
)
def test_what_is_no_value_of_its_own(text: str) -> None:
    parsed = parse_number(text)
    assert (parsed.answer, parsed.parse_error) == (None, NO_SINGLE_NUMBER)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 4y = 36, y = 9.", "9"),
        ("The answer is f(3) = 9.", "9"),
        ("The answer is 3 x 3 = 9.", "9"),
        ("The answer is |7 - 16| = 9.", "9"),
        ("The answer is 9, 4 more than 5.", "9"),
        ("The answer is 9 of the 10 ducks.", "9"),
        ("So 9 ducks are left after 7 flew off.", "9"),
        ("We see 7 ducks and 9 geese. That makes 7 + 9 = 16 birds.", "16"),
        ("The answer is $9B.", "9000000000"),
        ("The answer is $1.5T.", "1500000000000"),
    ],
)
def test_what_is_one(text: str, number: str) -> None:
    assert parse_number(text).answer == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (r"Die Antwort ist $\boxed{3,5}$.", "3.5"),
        (r"La réponse est \boxed{1.250,75}.", "1250.75"),
        ("Die Antwort lautet <answer>3,5</answer>", "3.5"),
        (r"The answer is \boxed{1,250}.", "1250"),
        (r"The answer is \boxed{3,5}.", None),
    ],
)
def test_the_language_around_a_mark_says_what_its_comma_is(text: str, number: str | None) -> None:
    assert parse_number(text).answer == number


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        *(("So the answer is minus 8.", "-8"), ("The answer is negative 8", "-8"), ("It comes to minus 8.", "-8")),
        *(("The answer is 8.", "8"), ("The answer is .8", "0.8"), ("Die Antwort ist Buchstabe D.", "80")),
    ],
)
def test_signs_in_words_belong_to_choices(text: str, choice: str) -> None:
    assert parse_choice(text, DEGREES).answer == choice


def test_a_prefix_with_a_hyphen_makes_another_word() -> None:
    reader = LabelReader(("complete", "late", "in-house", "non_binding", "binding"))
    read = {
        text: reader.parse(text).answer
        for text in (
            "The form is in-complete.",
            "So the answer is: dis-binding.",
            "So the answer is in-house.",
            "So the answer is in house.",
            "It is NONBINDING.",
            "So the answer is nonbinding.",
            "It is binding.",
        )
    }
    assert list(read.values()) == [None, None, "in-house", "in-house", "non_binding", "non_binding", "binding"]
