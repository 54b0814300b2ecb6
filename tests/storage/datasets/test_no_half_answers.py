"""Texts whose answer was once read by half: one of several numbers or units, a part of a formula, what is denied."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.datasets.inference import NLI_LABELS
from storage.datasets.label_sets import LabelSetReader
from storage.datasets.parsing import (
    DENIED,
    NO_ANSWER,
    NO_SINGLE_NUMBER,
    SEVERAL_ANSWERS,
    LabelReader,
    parse_choice,
    parse_number,
)

SAID = "Some say 3, some say 4. So the answer is {}."
WATERS = ("river", "lake", "pond", "sea")


@pytest.mark.parametrize(
    ("written", "number"),
    [
        *(("(3)^4", "81"), ("(7 - 2)^2", "25"), ("3⁴", "81"), ("(3)⁴", "81"), ("3**4", "81"), ("3^{4}", "81")),
        *(
            ("-3^2", "-9"),
            ("(-3)^2", "9"),
            ("2^3 + 1", "9"),
            ("2 * 3^2", "18"),
            ("(1/2)^2", "0.25"),
            ("10^-3", "0.001"),
        ),
        *(("3 to the power of 4", "81"), ("6 times 7", "42"), ("6 plus 7", "13"), ("42 divided by 6", "7")),
        *(("9 m^2", "9"), ("9 m/s²", "9"), ("9 boxes with 2 left over", "9"), ("9 (or so)", "9"), ("9 times", "9")),
        *(("9 in all, 4 red and 5 blue", "9"), ("9 for the 3 boys", "9"), ("9 apples, 4 fewer than Ann", "9")),
        ("9 birds left after 2 hours and 20 minutes", "9"),
    ],
)
def test_one_number_is_read(written: str, number: str) -> None:
    assert parse_number(SAID.format(written)).answer == number


@pytest.mark.parametrize(
    "written",
    [
        *("3^0.5", "3^(1/2)", "3^n", "(3)^x", "3²·⁵", "9! / 2", "9 squared", "9 hoch 2"),
        *("7 + 2i", "7 - i", "4j", "2n + 1", "n - 4", "7y", "3(x + 2)", "x > 7", "±7", "3π", "√7", "Ann's age + 7"),
        *("7 and 9", "7, 9", "7 & 9", "7; 9", "(7, 9)", "[7, 9]", "{7, 9}", "7 pens and 9 books", "x = 7 and y = 9"),
        *("7 (or 9)", "7, maybe 9", "7 und 9", "7 et 9", "7 y 9", "Ann: 7, Bob: 9", "(a) 7 and (b) 9", "1) 7 2) 9"),
        *("7 remainder 2", "7 by 9", "7 vs. 9", "7 -> 9", "7...9", "1/7 and 1/9", "seven and nine", "7 and two"),
        *("between 7 and 9", "zwischen 7 und 9", "de 7 à 9", "entre 7 y 9"),
        *("3 hours and 20 minutes", "3 h 20 min", "3h20", "6 ft 2 in", "6 ft. 2 in.", "4 lb 3 oz", "$3 and 20 cents"),
        *(
            "3 Stunden und 20 Minuten",
            "3 heures 20",
            "3 horas y 20 minutos",
            "an hour and 20 minutes",
            "3 hours and a half",
        ),
        *("half of 18", "twice 9", "the sum of 7 and 9", "the square root of 81", "6 mal 7", "3 times the price"),
    ],
)
def test_more_or_less_than_one_number_is_none(written: str) -> None:
    parsed = parse_number(SAID.format(written))
    assert (parsed.answer, parsed.parse_error) == (None, NO_SINGLE_NUMBER)


@pytest.mark.parametrize(
    "text",
    [
        *(
            r"\boxed{7, 9}",
            r"\boxed{7,9}",
            r"\boxed{7 + 2i}",
            r"\boxed{7 \text{ and } 9}",
            r"\boxed{\pm 7}",
            r"\boxed{9!}",
        ),
        *(
            r"\boxed{[7, \infty)}",
            r"\boxed{\frac{n}{9}}",
            r"\boxed{3^{1/2}}",
            r"\boxed{0.\overline{7}}",
            r"\boxed{\sin 30}",
        ),
        *(
            r"\boxed{7} and \boxed{9}",
            r"$x$ is $\boxed{7}$ and $y$ is $\boxed{9}$.",
            "<answer>7</answer><answer>9</answer>",
        ),
        *("#### 7\n#### 9", "The answers are 7 and 9.", "The answers are:\n- 7\n- 9", "Answer:\n1. 7\n2. 9"),
        *("Die Antworten sind 7 und 9.", "Les réponses sont 7 et 9.", "Las respuestas son 7 y 9.", "答案是7和9。"),
        *(
            "7 and 9",
            "7, 9",
            "| 7 | 9 |",
            "So x = 7 and y = 9.",
            "She runs 3 hours and 20 minutes.",
            "It takes 3 h 20 min.",
        ),
        *('{"answer": [7, 9]}', '{"answer": (7, 9)}', '{"answer": [1,345]}', '{"answer": {"x": 7, "y": 9}}'),
        *('[{"answer": 7}, {"answer": 9}]', '{"answer": 7 + 2i}', '{"answer": "7 and 9"}', '{"x": 7, "y": 9}'),
    ],
)
def test_lists_and_formulas_in_any_dress(text: str) -> None:
    parsed = parse_number(text)
    assert (parsed.answer, parsed.parse_error) == (None, NO_SINGLE_NUMBER)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (r"\boxed{(3)^4}", "81"),
        (r"\boxed{\left(\frac{1}{2}\right)^2}", "0.25"),
        (r"\boxed{90^\circ}", "90"),
        (r"\boxed{9\text{ cm}^2}", "9"),
        (r"So \boxed{9}. To check: \boxed{9}.", "9"),
        (r"First \boxed{7}. No, that is too small. It is \boxed{9}.", "9"),
        ('{"answer": [9]}', "9"),
        ('{"answer": {"value": 9, "unit": "km", "confidence": 0.8}}', "9"),
        ("It is not 7 but 9.", "9"),
        ("Die Antwort ist nicht 7, sondern 9.", "9"),
        ("La réponse n'est pas 7 mais 9.", "9"),
        ("La respuesta no es 7 sino 9.", "9"),
        ("She did not sell 9 of the 20 cakes.", "9"),
    ],
)
def test_what_is_one_number_all_the_same(text: str, number: str) -> None:
    assert parse_number(text).answer == number


@pytest.mark.parametrize(
    "text",
    [
        *("9 is not the answer.", "9 is wrong.", "It cannot be 9.", "Neither 7 nor 9.", "The answer can't be 9."),
        *("La respuesta no es 9.", "La réponse n'est pas 9.", "Het antwoord is niet 9.", "9 ist nicht die Antwort."),
        *("The answer is anything but 9.", "The wrong answer is 9.", "The answer is not 7, it is not 9."),
    ],
)
def test_a_denied_number_is_none(text: str) -> None:
    parsed = parse_number(text)
    assert (parsed.answer, parsed.parse_error) == (None, DENIED)


def test_a_field_that_is_null_is_no_answer() -> None:
    text = '{"reason": "It has 9 rooms.", "answer": null}'
    assert (parse_number(text).answer, parse_number(text).parse_error) == (None, NO_ANSWER)
    assert parse_choice('{"reason": "No river, a lake.", "answer": null}', WATERS).answer is None


@given(
    st.lists(st.integers(-(10**6), 10**6), min_size=2, max_size=4, unique=True),
    st.sampled_from([", ", "; ", " and ", " & ", " or ", " und ", " et ", " y "]),
    st.sampled_from([SAID, "\\boxed{{{}}}", "#### {}", '{{"answer": "{}"}}', "The answers are {}."]),
)
def test_no_list_of_numbers_is_read_as_one_of_them(numbers: list[int], between: str, form: str) -> None:
    assert parse_number(form.format(between.join(map(str, numbers)))).answer is None


@pytest.mark.parametrize(
    "text",
    [
        *(
            "(b) is not the answer.",
            "Lake is not the right answer.",
            "The lake isn't the right choice.",
            "Not the lake.",
        ),
        *("(b) is wrong.", "(b) can be eliminated.", "We can rule out (b).", "The wrong answer is (b).", "not (b)"),
        *("(b) is too small.", "This rules out the lake.", "All but (b) are right.", "The answer is neither A nor B."),
        *("(b) ist falsch.", "(b) n'est pas la bonne réponse.", "(b) es incorrecta.", "La respuesta no es B."),
        *("lake: no", "The answer is anything but the lake.", "正解はBではありません。"),
    ],
)
def test_a_denied_choice_is_none(text: str) -> None:
    assert parse_choice(text, WATERS).answer is None


@pytest.mark.parametrize(
    "text",
    [
        *("It's not B but C.", "Neither A nor B; C", "Neither (a) nor (b): (c).", "Not the lake but the pond."),
        *("Es ist nicht B, sondern C.", "Ce n'est pas B mais C.", "No es B sino C.", "Weder A noch B, sondern C."),
        *(
            "La respuesta no es B, sino C.",
            "All but (c) are wrong.",
            "(a) is far; (c) fits.",
            "(c) is correct.",
        ),
        *("river: no\nlake: no\npond: yes\nsea: no", "(a) ✗ (b) ✗ (c) ✓ (d) ✗", "- [ ] river\n- [ ] lake\n- [x] pond"),
        *("A: no\nB: no\nC: yes\nD: no", "| A | wrong |\n| C | right |", '{"A": false, "B": false, "C": true}'),
    ],
)
def test_the_choice_beside_the_denied_ones(text: str) -> None:
    assert parse_choice(text, WATERS).answer == "pond"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "The answer is lake and pond.",
            "The answer is lake, pond.",
            "The answers are (b) and (c).",
            r"\boxed{B} and \boxed{C}",
        ),
        *(
            "The answers are:\n- lake\n- pond",
            "La respuesta es lake y pond.",
            "答案是B和C。",
            "lake: yes\npond: yes\nsea: no",
        ),
    ],
)
def test_several_choices_are_none(text: str) -> None:
    parsed = parse_choice(text, WATERS)
    assert (parsed.answer, parsed.parse_error) == (None, SEVERAL_ANSWERS)


def test_what_is_asked_is_no_answer() -> None:
    text = "The possible answers are (a), (b), (c) and (d). Only (d) is salty."
    assert parse_choice(text, WATERS).answer == "sea"


@pytest.mark.parametrize("yes", ["yes", "ja", "oui", "sí", "true", "✓", "**Yes**"])
@pytest.mark.parametrize("sign", [": ", " - ", "? ", " = ", " | "])
def test_the_label_that_has_the_yes(yes: str, sign: str) -> None:
    text = f"Entailment{sign}no\nNeutral{sign}{yes}\nContradiction{sign}no"
    assert NLI_LABELS.parse(text, ()).answer == "neutral"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Entailment: no\nNeutral: yes\nContradiction: no\nAll in all it is contradiction.", "contradiction"),
        ("Entailment: no\nContradiction: no", None),
        ("Entailment: No", None),
        ("Entailment: 0.2\nNeutral: 0.5\nContradiction: 0.3", None),
        ("Neutral: no evidence is given for it.", "neutral"),
        ("We can rule out entailment and contradiction.", None),
        ("I do not think this is entailment.", None),
        ("Nothing here contradicts the hypothesis.", None),
        ("Nothing says that he sleeps, so it is neutral.", "neutral"),
        ("It is far from neutral.", None),
        ("So the answer is entailment, neutral.", None),
        ("La respuesta no es neutral.", None),
        ("Die Antwort ist nicht neutral, sondern contradiction.", "contradiction"),
    ],
)
def test_labels(text: str, label: str | None) -> None:
    assert NLI_LABELS.parse(text, ()).answer == label


def test_labels_in_other_languages() -> None:
    moods = LabelReader(["bueno", "malo"])
    texts = ("No es bueno.", "No es bueno, sino malo.", "Bueno: no\nMalo: sí")
    assert [moods.parse(text).answer for text in texts] == [None, "malo", "malo"]


def test_labels_that_are_yes_and_no_have_no_verdicts() -> None:
    assert LabelReader(["yes", "no"]).parse("Is it cold? No.").answer == "no"
    assert LabelReader(["yes", "no"]).parse("Answer: yes/no").parse_error == SEVERAL_ANSWERS


def test_a_set_is_read_from_several_marks() -> None:
    topics = LabelSetReader(["billing", "outage"])
    assert topics.parse(r"\boxed{outage} and \boxed{billing}").answer == "billing, outage"
    assert topics.parse("The answers are outage and billing.").answer == "billing, outage"
    assert topics.parse("La respuesta no es billing.").answer is None
