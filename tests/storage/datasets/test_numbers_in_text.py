"""Numbers as teachers really write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.datasets.parsing import EMPTY_TEXT, NO_ANSWER, normalise_number, parse_number


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("He had 84 points in 2 rounds. The answer is (84 / 2).", "42"),
        ("There are 16 blocks. The answer is (16 * 17) * 4.", "1088"),
        ("So the answer is 42.", "42"),
        ("The answer is 42.0", "42"),
        ("Thus \\boxed{210}", "210"),
        ("It is $\\boxed{\\frac{3}{4}}$.", "0.75"),
        ("5 + 3 = 8\n#### 1,042", "1042"),
        ("I think <answer> 7 </answer>", "7"),
        ("The answer is **$1,200.50**.", "1200.5"),
        ("Answer: 2 apples", "2"),
        ("The final answer is:\n\n42", "42"),
        ("Therefore, Luke scored 42 points per round", "42"),
        ("30", "30"),
        ("16 * 13 = 208 feet deep", "208"),
        ("97.0 - 40.0\nRationale: There are many. They hide.", "57"),
        ("Hence the answer is 18 - 4 = 14.", "14"),
        ("Hence the answer is 2.\nAnswer: 3", "3"),
        ("Josh lost some, which leaves -10", "-10"),
        ("Lucy bought a total of 42 packs of groceries (4 + 22 + 16 = 42).", "42"),
        ("There are 6 more figures than books (16 - 10).", "6"),
        ("It needs 540 g of wax (557 g - 17 g).", "540"),
        ("So 32 cakes would be left for Baker after his friend bought 137 cakes.", "32"),
        ("After 6 days of harvest, they will have 390 sacks.", "390"),
        ("He had 5 balloons and then bought 3 more, so he brought a total of 8 balloons.", "8"),
        ("On the 28th day, he would finish the last 14 pages.", "14"),
        ("So Dan bought three candy bars.", "3"),
        ("That is equal to 12 pens", "12"),
        ("Step 4: They jumped 66 inches.", "66"),
        ("x - 24 crackers remain", "24"),
        ("To check: 1. Our answer is 15. It fits.", "15"),
    ],
)
def test_answer(text: str, answer: str) -> None:
    parsed = parse_number(text)
    assert parsed.answer == answer
    assert parsed.parse_error is None


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", EMPTY_TEXT),
        ("  \n", EMPTY_TEXT),
        ("Sorry, I do not know.", NO_ANSWER),
        ("The answer is unclear.", NO_ANSWER),
        ("The answer is 1/0.", None),
    ],
)
def test_no_answer(text: str, error: str | None) -> None:
    parsed = parse_number(text)
    assert parsed.parse_error == error
    assert (parsed.answer is None) == (error is not None)


@pytest.mark.parametrize(
    ("text", "rationale"),
    [
        ("Of 56, 39 are sold: 56 - 39 = 17. So the answer is 17.", "Of 56, 39 are sold: 56 - 39 = 17."),
        ("Rationale: 1 + 1 makes 2, hence the answer is 2", "1 + 1 makes 2."),
        ("It is 2. Hence the answer is 2.\nAnswer: 2", "It is 2."),
        ("3 and 4 make 7.\n#### 7", "3 and 4 make 7."),
        ("30", ""),
        ("The answer is 30.", ""),
        ("Therefore, Luke scored 42 points.", "Therefore, Luke scored 42 points."),
        ("20.0 - 14.0\nRationale: Some flew away.", "Some flew away."),
    ],
)
def test_rationale_is_the_text_without_its_closing_statement(text: str, rationale: str) -> None:
    assert parse_number(text).rationale == rationale


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("42.0", "42"),
        ("1,200.50", "1200.5"),
        ("$5", "5"),
        ("3/4", "0.75"),
        ("25%", "25"),
        (" **7** ", "7"),
        ("-0", "0"),
        ("( 84.0 / 2.0 )", "42"),
        ("seven", None),
        ("", None),
        ("nan", None),
        ("1, 2", None),
    ],
)
def test_normalise(answer: str, normal: str | None) -> None:
    assert normalise_number(answer) == normal


@given(st.text(max_size=80) | st.floats().map(str) | st.integers().map(str))
def test_normalise_is_idempotent(answer: str) -> None:
    normal = normalise_number(answer)
    if normal is not None:
        assert normalise_number(normal) == normal


@given(
    st.integers(-(10**9), 10**9), st.sampled_from(["So the answer is {}.", "#### {}", "\\boxed{{{}}}", "Answer: {}"])
)
def test_any_announced_number_is_read(number: int, form: str) -> None:
    assert parse_number(f"Some say 3, some say 4. {form.format(number)}").answer == str(number)
    assert parse_number(f"Some say 3, some say 4. {form.format(f'{number:,}')}").answer == str(number)


@given(st.text(max_size=300))
def test_answer_or_error_never_both(text: str) -> None:
    parsed = parse_number(text)
    assert (parsed.answer is None) != (parsed.parse_error is None)
    if parsed.answer is not None:
        assert normalise_number(parsed.answer) == parsed.answer
