"""Announced choices and labels: with reasons, hedges, denials, as JSON, in other languages; and choices told apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.datasets.inference import NLI_LABELS
from storage.datasets.parsing import DENIED, SEVERAL_ANSWERS, LabelReader, normalise_choice, parse_choice, parse_number

WATERS = ("river bank", "lake", "pond", "ink", "sea")  # (b) is the lake


@pytest.mark.parametrize(
    "text",
    [
        "Answer: B, because a pond is small.",
        "The answer is B because the sea is salty.",
        "I would pick B - a calm one among these.",
        "I'd go with (B).",
        "Option B is correct.",
        "Choice (b) is the best answer, not the pond.",
        "The answer is B, not C.",
        "The answer is (B) lake, not (C) pond.",
        "The answer is a lake, unlike the sea.",
        "\\boxed{\\text{B}}",
        "\\boxed{\\textbf{(B)}}",
        "$\\boxed{\\mathrm{B}}$",
        "### Final answer\nB",
        "**Answer**\n\n(B) lake",
        "(a) Too narrow. (c) Small, like a pond.\nOnly (b) fits, no pond does.",
        "The answer is Ｂ.",
        "（Ｂ）",
        "A: (B)",
        "Not the pond. The answer is the lake.",
        "The most likely answer for the question 'Sea or pond?' is also **(B) lake**. The sea is too large.",
    ],
)
def test_letters_and_reasons(text: str) -> None:
    assert parse_choice(text, WATERS).answer == "lake"


@pytest.mark.parametrize(
    "text",
    [
        "A pond is likely. Therefore, the answer is A, B, C, or E.",
        "The answer is most likely B or C.",
        "So the answer is A, B, D, and E.",
        "Answer: B/C",
        "The answer is either the lake or the pond.",
        "The answer is lake or pond.",
        'Done: {"answer": ["B", "C"]}',
    ],
)
def test_hedges(text: str) -> None:
    parsed = parse_choice(text, WATERS)
    assert (parsed.answer, parsed.parse_error) == (None, SEVERAL_ANSWERS)


@pytest.mark.parametrize(
    "text", ["The answer is not B.", "Die Antwort ist nicht B.", "The lake is big. The answer is not (b)."]
)
def test_a_denied_choice_is_none(text: str) -> None:
    parsed = parse_choice(text, WATERS)
    assert (parsed.answer, parsed.parse_error) == (None, DENIED)


@pytest.mark.parametrize(
    "text",
    [
        '{"answer": "B", "reason": "the pond is too small"}',
        '```json\n{\n  "reason": "the pond is too small",\n  "answer": "(b) lake"\n}\n```',
        '{"choice": "B", "explanation": "unlike a pond"}',
        "{'final_answer': 'lake', 'reason': 'no pond'}",
        'Small is the pond.\n{"answer": "B"}',
        '{"reason": "pond", "answer": "B"',
        '{"reason": "a \\"pond\\"", "answer": {"letter": "B"}, "answer_text": "lake"}',
    ],
)
def test_json(text: str) -> None:
    assert parse_choice(text, WATERS).answer == "lake"


def test_the_rationale_of_json_is_its_explanation() -> None:
    text = '{"reason": "A lake is \\"still\\" water.", "answer": "B"}'
    assert parse_choice(text, WATERS).rationale == 'A lake is "still" water.'
    assert parse_number('It is 30 - 4.\n```json\n{"answer": 26}\n```').rationale == "It is 30 - 4."


@pytest.mark.parametrize(
    "text",
    [
        "Antwort: B",
        "Die richtige Antwort ist B, denn der pond ist klein.",
        "La bonne réponse est (B).",
        "Réponse : B",
        "La respuesta correcta es B.",
        "A resposta é B.",
        "La risposta corretta è B.",
        "Правильный ответ — B.",
        "正确答案是 (B)。",
        "答案：B",
        "正解はBです。",
        "정답은 (B)입니다.",
        "الإجابة: B",
    ],
)
def test_other_languages(text: str) -> None:
    assert parse_choice(text, WATERS).answer == "lake"


def test_scripts_without_spaces_and_accents() -> None:
    moods = ("高兴", "难过", "平静")
    assert parse_choice("虽然不是高兴，也不是平静，所以答案是难过。", moods).answer == "难过"
    assert LabelReader(moods).parse("他不是高兴，而是难过。", ()).answer == "难过"
    assert parse_choice("So the answer is cre\u0301me.", ("cr\u00e9me", "tea")).answer == "cr\u00e9me"


@pytest.mark.parametrize(
    ("choices", "text", "answer"),
    [
        (("7", "-7", "70"), "So the answer is (b) -7.", "-7"),
        (("7", "-7", "70"), "So the answer is −7.", "-7"),
        (("7", "-7", "70"), "So the answer is $-7$.", "-7"),
        (("7", "-7", "70"), "(b) -7", "-7"),
        (("7", "-7", "70"), "It must be 7.", "7"),
        (("y", "-y", "3y"), "So the answer is (b) -y.", "-y"),
        ((".7", "7", "70"), "So the answer is (b) 7.", "7"),
        ((".7", "7", "70"), "So the answer is .7.", ".7"),
        (("4", "4.5", "40"), "So the answer is (b) 4.8.", "4.5"),
        (("4", "40"), "So the answer is 4.8.", None),
        (("$7", "7%", "7", "€7"), "So the answer is (d) €7.", "€7"),
        (("$7", "7%", "7", "€7"), "So the answer is 7%.", "7%"),
        (("1200", "120"), "So the answer is 1,200.", "1200"),
        (("2/3", "3", "2"), "So the answer is 2/3.", "2/3"),
        (("not open", "open"), "So the answer is not-open.", "not open"),
        (("Turkey", "turkey", "hen"), "So the answer is (b) turkey.", "turkey"),
        (("Turkey", "turkey", "hen"), "So the answer is Turkey.", "Turkey"),
        (("turkey", "hen"), "So the answer is Turkey.", "turkey"),
        (("C", "C++"), "So the answer is C++.", "C++"),
    ],
)
def test_choices_that_differ_stay_different(choices: tuple[str, ...], text: str, answer: str | None) -> None:
    assert parse_choice(text, choices).answer == answer


SPELLINGS = st.sampled_from(["7", "-7", ".7", "0.7", "$7", "7%", "7!", "x", "-x", "X", "x-ray", "x ray", "NO", "no"])


@given(st.lists(SPELLINGS, min_size=2, max_size=6, unique=True).map(tuple), st.data())
def test_a_choice_spelled_as_listed_is_itself(choices: tuple[str, ...], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(choices) - 1))
    letter = "abcdef"[position]
    assert normalise_choice(choices[position], choices) == choices[position]
    assert parse_choice(f"So the answer is ({letter}) {choices[position]}.", choices).answer == choices[position]


DOORS = LabelReader(["Open", "Not Open", "Locked", "Not Locked"])


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("So the answer is NOT_OPEN.", "Not Open"),
        ("So the answer is not-locked.", "Not Locked"),
        ("It was not properly locked.", None),
        ("This isn't open.", None),
        ("It is non-open.", None),
        ("It is not the case that the door is locked.", None),
        ("The door is locked, not open.", None),  # both are labels
        ("It is not only open, it is wide open.", "Open"),
        ("Label: NOT_OPEN\nReason: nothing is open.", "Not Open"),
    ],
)
def test_denied_labels(text: str, label: str | None) -> None:
    assert DOORS.parse(text, ()).answer == label


def test_the_label_beside_a_denied_one() -> None:
    games = LabelReader(["won", "lost"])
    assert games.parse("They won, not lost.", ()).answer == "won"
    assert games.parse("They have not lost but won.", ()).answer == "won"


@pytest.mark.parametrize(
    "text",
    [
        "The hypothesis is not entailed by the premise.",
        "So the answer is not entailment.",
        "It does not entail it.",
        "The premise doesn't necessarily entail the hypothesis.",
        "It cannot be entailed.",
        "Entailment does not hold.",
    ],
)
def test_what_is_not_entailed_is_no_entailment(text: str) -> None:
    assert NLI_LABELS.parse(text, ()).answer is None


@given(
    st.sampled_from(["not", "never", "non-", "isn't", "is not really", "neither", "not at all"]),
    st.sampled_from(["entailment", "contradiction", "neutral"]),
    st.sampled_from(["It is {}.", "The label: {}", "{}", "So the answer is {}."]),
)
def test_a_label_behind_a_denial_is_never_read(denial: str, label: str, sentence: str) -> None:
    words = f"{denial}{label}" if denial.endswith("-") else f"{denial} {label}"
    assert NLI_LABELS.parse(sentence.format(words), ()).answer is None


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("It stays. Therefore, the answer (Yes or No) is No.", "no"),
        ("The answer (yes/no): **yes**", "yes"),
        ("The answer [yes/no] is no.", "no"),
    ],
)
def test_an_announcement_with_what_is_allowed(text: str, label: str) -> None:
    assert LabelReader(["yes", "no"]).parse(text, ()).answer == label


def test_json_labels() -> None:
    text = '{"label": "contradiction", "explanation": "it is neither neutral nor entailment"}'
    assert NLI_LABELS.parse(text, ()).answer == "contradiction"
    assert NLI_LABELS.parse('{"explanation": "Not neutral.", "label": 0}', ()).answer == "entailment"


def test_codes_only_where_labels_are_no_numbers() -> None:
    stars = LabelReader(["1", "2", "3", "4", "5"])
    assert stars.normalise("0") is None
    assert stars.parse("So the answer is 0.", ()).answer is None
    assert (stars.normalise("4"), stars.normalise("4.0")) == ("4", "4")
    claims = LabelReader(["true", "false"])
    assert (claims.normalise("1"), claims.normalise("0")) == ("true", "false")
    assert LabelReader(["no", "yes"]).normalise("1") == LabelReader(["yes", "no"]).normalise("1") == "yes"
    assert LabelReader(["low", "high"]).normalise("1") == "high"


def test_the_closing_line_a_is_no_rationale() -> None:
    assert (
        parse_number("5 * 6 = 30 birds\n30 - 4 = 26 birds\nA: 26").rationale == "5 * 6 = 30 birds\n30 - 4 = 26 birds."
    )
