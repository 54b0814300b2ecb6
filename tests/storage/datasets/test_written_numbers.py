"""Numbers in the spellings of several countries, with fractions, scales and words; and what only looks like one."""

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from storage.datasets.arithmetic import write_number
from storage.datasets.parsing import DENIED, NO_ANSWER, NO_SINGLE_NUMBER, normalise_number, parse_number
from storage.datasets.spelled_numbers import spelled_numbers

SAID = "Some say 3, some say 4. So the answer is {}."


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("7 654 321", "7654321"),
        ("7\u202f654", "7654"),
        ("7\u00a0654,25 €", "7654.25"),
        ("7.654.321", "7654321"),
        ("7.654,5", "7654.5"),
        ("7,654.5", "7654.5"),
        ("7'654", "7654"),
        ("7’654’321", "7654321"),
        ("76,54,321", "7654321"),
        ("7,00,000", "700000"),
        ("7_654", "7654"),
        ("−7 654", "-7654"),
        ("6,5", "6.5"),
        ("0,125", "0.125"),
        ("７６", "76"),
        ("७६", "76"),
        ("٧٦", "76"),
        ("\\boxed{7{,}654}", "7654"),
        ("$7\\,654$", "7654"),
    ],
)
def test_thousands_and_decimals(written: str, number: str) -> None:
    assert parse_number(SAID.format(written)).answer == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Die Antwort ist 7.654.", "7654"),
        ("Die Antwort lautet: 6,5", "6.5"),
        ("The answer is 7.654.", "7.654"),
        ("La respuesta es 7.654,5.", "7654.5"),
        ("答案是76。", "76"),
        ("Ответ: 76", "76"),
    ],
)
def test_the_language_of_the_announcement_tells_what_a_point_is(text: str, number: str) -> None:
    assert parse_number(text).answer == number


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("3 1/4", "3.25"),
        ("-3 1/4", "-3.25"),
        ("$3\\frac{1}{4}$", "3.25"),
        ("3¼ cups", "3.25"),
        ("⅗", "0.6"),
        ("3 and a half hours", "3.5"),
        ("three and a half", "3.5"),
        ("three quarters", "0.75"),
        ("minus 31", "-31"),
        ("negative 31", "-31"),
        ("31 minus 4", "27"),
        ("-2.4 billion", "-2400000000"),
        ("$4k", "4000"),
        ("2.5M", "2500000"),
        ("2 million 500 thousand", "2500000"),
        ("3 hundred", "300"),
        ("10^5", "100000"),
        ("10⁵", "100000"),
        ("2**10", "1024"),
        ("2.5 × 10^3", "2500"),
        ("2.5e3", "2500"),
        ("two hundred", "200"),
        ("fifty-one", "51"),
        ("minus five", "-5"),
        ("four thousand three hundred and six", "4306"),
        ("not 8 but 9", "9"),
        ("9, not 8", "9"),
        ("12 m²", "12"),
        ("12 cm^2", "12"),
        ("12 km", "12"),
        ("**12**", "12"),
    ],
)
def test_fractions_scales_and_words(written: str, number: str) -> None:
    assert parse_number(SAID.format(written)).answer == number


@pytest.mark.parametrize(
    "written",
    [
        *(
            "20-25",
            "20–25",
            "20 — 25",
            "20 to 25",
            "20 or 25",
            "between 20 and 25",
            "20 apples or 25 apples",
            "1, 2 or 3",
        ),
        *("2019-04-07", "07/04/2019", "7.4.2019", "7 April 2019", "April 7, 2019", "7:45", "7:45 pm", "4 pm", "3:4"),
        *(
            "20 + Ann's age",
            "20 * x",
            "20 + 3x",
            "1,2,3",
            "1.2.3",
            "6'2\"",
            "0x1F",
            "9^9^9",
            "3 dozen",
            "5 300 ml bottles",
        ),
    ],
)
def test_what_is_no_single_number(written: str) -> None:
    parsed = parse_number(SAID.format(written))
    assert (parsed.answer, parsed.parse_error) == (None, NO_SINGLE_NUMBER)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("It has 20 rooms. I cannot say more; the list ends in 2019.", NO_ANSWER),
        ("That cannot be determined from 3 facts.", NO_ANSWER),
        ("She has 20. The answer is not 20.", DENIED),
    ],
)
def test_refusals_and_denials(text: str, reason: str) -> None:
    parsed = parse_number(text)
    assert (parsed.answer, parsed.parse_error) == (None, reason)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("On April 7, 2019 she had 12 hens.", "12"),
        ("At 7:45 there were 12 hens.", "12"),
        ("I cannot see it, but 20 - 8 = 12. So 12 remain.", "12"),
        ("It is either 6 rows or 6 columns.", "6"),
        ("The answer is 31 - 4.", "27"),
        ("#### Step 2\nWe get 5 + 7 = 12.\n#### Step 3\nThe answer is 12.", "12"),
    ],
)
def test_what_beside_them_is_the_answer(text: str, number: str) -> None:
    assert parse_number(text).answer == number


@pytest.mark.parametrize(
    ("label", "number"),
    [
        ("20-25", None),
        ("3-1", None),
        ("2019-04-07", None),
        ("7:45", None),
        ("0x1F", None),
        ("20 to 25", None),
        ("7.654,5", "7654.5"),
        ("7 654", "7654"),
        ("3 1/4", "3.25"),
        ("½", "0.5"),
        ("2.5e3", "2500"),
        ("( 3 - 1 )", "2"),
        ("7 - 2", "5"),
    ],
)
def test_gold_labels(label: str, number: str | None) -> None:
    assert normalise_number(label) == number


@given(
    st.integers(-(10**12), 10**12),
    st.sampled_from([(",", "."), ("'", "."), ("_", "."), ("\u202f", ","), ("\u00a0", ","), (".", ",")]),
    st.integers(1, 99),
)
def test_any_grouped_number_is_read(whole: int, marks: tuple[str, str], cents: int) -> None:
    assume(abs(whole) >= 1000)
    thousands, decimal = marks
    written = f"{whole:,}".replace(",", thousands) + f"{decimal}{cents:02d}"
    value = abs(whole) + Fraction(cents, 100)
    assert parse_number(SAID.format(written)).answer == write_number(-value if whole < 0 else value)


SMALL = ["", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


@given(st.integers(1, 9), st.integers(2, 9), st.integers(0, 9))
def test_spelled_numbers_are_read(hundreds: int, tens: int, ones: int) -> None:
    rest = TENS[tens] + (f"-{SMALL[ones]}" if ones else "")
    assert spelled_numbers(f"There are {SMALL[hundreds]} hundred and {rest} birds.") == [
        hundreds * 100 + tens * 10 + ones
    ]


@pytest.mark.parametrize("text", ["the right one", "one of them", "five six", "no number"])
def test_words_that_are_no_numbers(text: str) -> None:
    assert spelled_numbers(text) == []
