"""Which arithmetic is found in rationales as people and models write them, and what of it is right."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.datasets.arithmetic_steps import arithmetic_steps, right_steps


@pytest.mark.parametrize(
    "text",
    [
        "She has 12 + 3 = 15 apples.",
        "12+3=15",
        "So 12 + 3 - 4 = 11.",
        "4 x 12 = 48",
        "4X12 = 48",
        "4 × 12 = 48",
        "4 * 12 = 48",
        "48 ÷ 4 = 12",
        "48 / 4 = 12",
        "3 − 5 = -2",
        "1.5 + 0.25 = 1.75",
        "1,200 + 300 = 1,500",
        "1,200.50 x 2 = 2401",
        "$12 + $3 = $15",
        "They pay $12.50 x 2 = $25.00.",
        "(12 + 3) x 2 = 30",
        "2 x (3 + 4) = 14",
        "(see 3 + 4 = 7)",
        "the total (3 + 4 = 7), of course",
        "50% x 20 = 10",
        "10 / 40 x 100 = 25%",
        "10 / 40 = 25 %",
        "3/4 = 0.75",
        "2 / 3 = 0.67",
        "10 / 3 = 3.3",
        "Step 1: 3 + 4 = 7",
        "Step 2) 3 + 4 = 7",
        "1. 3 + 4 = 7",
        "- 3 + 4 = 7",
        "**3 + 4 = 7**",
        "Total = 3 + 4 = 7 apples",
        r"\(3 \times 4 = 12\)",
        "3 + 4 equals 7",
        "She has 3 + 4 = <<3+4=7>>7 apples.",
        "3  +\n4 = 7",
    ],
)
def test_one_right_step(text: str) -> None:
    assert right_steps(text) == (1, 1), arithmetic_steps(text)


@pytest.mark.parametrize(
    "text", ["12 + 3 = 16", "4 x 12 = 44.", "10 / 3 = 3", "10 / 3 = 3.4", "1,200 + 300 = 1500.5", "3 - 5 = 2"]
)
def test_one_wrong_step(text: str) -> None:
    assert right_steps(text) == (0, 1)


@pytest.mark.parametrize(
    ("text", "right", "steps"),
    [
        ("5 + 2 = 7, 7 - 3 = 4. So the answer is 4.", 2, 2),
        ("5 + 2 = 8, 8 - 3 = 5.", 1, 2),
        ("12 + 3 = 15 - 4 = 11", 2, 2),  # one goes on from the result
        ("12 + 3 = 16 - 4 = 12", 1, 2),
        ("2 x (3 + 4) = 2 x 7 = 14", 2, 2),
        ("2 + 3 = 5 = 5", 1, 1),
    ],
)
def test_several_steps(text: str, right: int, steps: int) -> None:
    assert right_steps(text) == (right, steps)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "She has 15 apples.",
        "x = 15",
        "15 = 15",
        "3 apples + 4 apples = 7 apples",
        "4 boxes x 12 = 48",
        "5 apples x 3 + 2 = 17",  # right, and not 3 + 2
        "2^3 + 1 = 9",
        "10:30 + 2 = 12",
        "12 + 3 = ?",
        "12 + 3 is 15",
        "1 / 0 = 0",
        "a1 + 3 = 4",
        "9**9**9 = 1",
    ],
)
def test_no_step(text: str) -> None:
    assert arithmetic_steps(text) == []


@given(st.integers(-999, 9999), st.sampled_from("+-*"), st.integers(0, 9999), st.integers(-5, 5))
def test_a_calculation_is_right_if_its_result_is(left: int, sign: str, right: int, off: int) -> None:
    result = {"+": left + right, "-": left - right, "*": left * right}[sign]
    assert right_steps(f"So {left} {sign} {right} = {result + off} of them.") == (off == 0, 1)
    assert right_steps(f"So {left:,} {sign} {right:,} = {result + off:,}.") == (off == 0, 1)


@given(st.text(alphabet="0123456789 .,+-*/x=()%$\n", max_size=200))
@example("((((1" * 50)
def test_no_text_makes_it_raise(text: str) -> None:
    right, steps = right_steps(text)
    assert 0 <= right <= steps <= text.count("=") + 1


@pytest.mark.parametrize(
    "piece", ["1", "1+", "(", "1 ", "= ", "1 + 1 = 2 ", "-", "1,000", "1+1=", " ", "x ", "* ", "1 + 1) = "]
)
def test_time_is_proportional_to_the_length(piece: str) -> None:
    started = time.process_time()
    arithmetic_steps(piece * (200_000 // len(piece)) + "1 + 1 = 2")
    assert time.process_time() - started < 3
