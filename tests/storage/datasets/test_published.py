"""The layouts in which the built-in datasets are published, by their authors and on the hub: rows of our own words."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.datasets.definition import Example
from storage.datasets.registry import get_dataset
from storage.errors import BadFile
from storage.recorded import read_recorded

LABELS, TEXTS = ["A", "B", "C", "D"], ["pan", "pot", "a pot lid", "lid"]
OBJECTS = [{"text": text, "label": label} for label, text in zip(LABELS, TEXTS, strict=True)]
POT = Example("What keeps steam in?", tuple(TEXTS), "lid")
NLI = "Premise: p\nHypothesis: h"
YES = {"question": "is it so", "answer": True}

ROWS: list[tuple[str, dict[str, Any], Example]] = [
    # SVAMP: the authors' SVAMP.json, the hub, the authors' CSV folds
    (
        "svamp",
        {"ID": "1", "Body": "Ann has 3 pens.", "Question": "How many?", "Answer": 3.0, "Equation": "( 3.0 )"},
        Example("Ann has 3 pens. How many?", (), "3", {"ID": "1", "equation": "( 3.0 )"}),
    ),
    (
        "svamp",
        {"question_concat": "All in one?", "Body": "All", "Question": "in one?", "Answer": "7"},
        Example("All in one?", (), "7"),
    ),
    (
        "svamp",
        {
            "Question": "ann has number0 pens and gets number1 . how many ?",
            "Numbers": "3.0 2.5",
            "Equation": "+ number0 number1",
            "Answer": "5.5",
            "Body": "ann has number0 pens and gets number1 .",
            "Ques": "how many ?",
        },
        Example(
            "ann has 3 pens and gets 2.5 . how many ?",
            (),
            "5.5",
            {"Numbers": "3.0 2.5", "Equation": "+ number0 number1"},
        ),
    ),
    # GSM8K: the same on the hub; a mapped label is read like the column; labels may be hidden
    (
        "gsm8k",
        {"question": "How many?", "answer": "1 + 1 = <<1+1=2>>2\n#### 1,002"},
        Example("How many?", (), "1002", {"solution": "1 + 1 = <<1+1=2>>2"}),
    ),
    (
        "gsm8k",
        {"question": "How many?", "label": "2 + 2\n#### 4"},
        Example("How many?", (), "4", {"solution": "2 + 2"}),
    ),
    ("gsm8k", {"question": "How many?", "answer": None}, Example("How many?")),
    # CommonsenseQA, ARC and OpenBookQA: authors, hub, flattened
    *(
        (name, row, POT)
        for name in ("cqa", "arc", "arc-easy", "openbookqa")
        for row in (
            {"question": {"stem": POT.question, "choices": OBJECTS}, "answerKey": "D"},
            {"question": POT.question, "choices": {"label": LABELS, "text": TEXTS}, "answerKey": "D"},
            {"question": POT.question, "choices": OBJECTS, "answerKey": "d"},
            {"question_stem": POT.question, "choices": {"text": TEXTS, "label": LABELS}, "answerKey": "D"},
            {"question": POT.question, "choices": TEXTS, "label": "lid"},
            {"question.stem": POT.question, "question.choices": OBJECTS, "answerKey": "D"},
            {"question": POT.question, "choices.text": TEXTS, "choices.label": LABELS, "answerKey": "D"},
            {"question": f"{POT.question} (A) pan (B) pot (C) a pot lid (D) lid", "AnswerKey": "D"},
            {"Question Stem": POT.question, "Choices": "(A) pan (B) pot (C) a pot lid (D) lid", "Answer Key": "D"},
        )
    ),
    (
        "arc",
        {"question": "Two?", "choices": {"label": ["1", "2", "3"], "text": ["2", "3", "1"]}, "answerKey": "1"},
        Example("Two?", ("2", "3", "1"), "2"),
    ),
    (
        "cqa",
        {"question": "Where?", "choices": {"label": ["A", "B"], "text": ["sea", "land"]}, "answerKey": ""},
        Example("Where?", ("sea", "land"), None),
    ),
    (
        "cqa",
        {"id": "7", "question": {"stem": "Where?", "question_concept": "sand", "choices": OBJECTS[:2]}},
        Example("Where?", ("pan", "pot"), None, {"id": "7", "question_concept": "sand"}),
    ),
    (
        "cqa",
        {"question": "Where?", "choices": ["sea", "land"], "answer": "land", "abstractive_explanation": "e"},
        Example("Where?", ("sea", "land"), "land", {"abstractive_explanation": "e"}),
    ),
    # AQuA: authors and hub; tokenised
    (
        "aqua",
        {"question": "x?", "options": ["A)3", "B)-1", "C)1.5", "D)none"], "rationale": "r", "correct": "B"},
        Example("x?", ("3", "-1", "1.5", "none"), "-1", {"rationale": "r"}),
    ),
    (
        "aqua",
        {"question": "x?", "options": ["A ) $ 3", "B ) ( 1,2 )"], "correct": "B"},
        Example("x?", ("$ 3", "( 1,2 )"), "( 1,2 )"),
    ),
    ("aqua", {"question": "x?", "options": ["3", "4"], "correct": "B"}, Example("x?", ("3", "4"), "4")),
    # e-SNLI, SNLI, ANLI
    (
        "esnli",
        {"premise": "p", "hypothesis": "h", "label": 1, "explanation_1": "e"},
        Example(NLI, (), "neutral", {"explanation_1": "e"}),
    ),
    ("esnli", {"Sentence1": "p", "Sentence2": "h", "gold_label": "entailment"}, Example(NLI, (), "entailment")),
    ("esnli", {"sentence1": "p", "sentence2": "h", "gold_label": "-"}, Example(NLI)),
    *(
        ("esnli", {"premise": "p", "hypothesis": "h", "label": none}, Example(NLI))
        for none in (-1, "-1", -1.0, "", None)
    ),
    *(
        (
            name,
            {"uid": "u", "context": "p", "hypothesis": "h", "label": "c"},
            Example(NLI, (), "contradiction", {"uid": "u"}),
        )
        for name in ("anli1", "anli2", "anli3")
    ),
    ("anli2", {"premise": "p", "hypothesis": "h", "label": 0}, Example(NLI, (), "entailment")),
    # StrategyQA and BoolQ: authors, hub, SuperGLUE
    (
        "strategyqa",
        YES | {"qid": "q", "facts": ["f"], "decomposition": ["d"]},
        Example("is it so", (), "yes", {"qid": "q", "facts": ["f"], "decomposition": ["d"]}),
    ),
    ("strategyqa", {"qid": "q", "question": "is it so"}, Example("is it so", (), None, {"qid": "q"})),
    ("boolq", YES | {"passage": "It is."}, Example("Passage: It is.\nQuestion: is it so", (), "yes")),
    *(
        ("boolq", {"question": "q", "passage": "p", "label": label}, Example("Passage: p\nQuestion: q", (), answer))
        for label, answer in ((False, "no"), (0, "no"), (1, "yes"), ("true", "yes"), (-1, None), ("Yes", "yes"))
    ),
]


@pytest.mark.parametrize(("name", "row", "example"), ROWS)
def test_published_columns(name: str, row: dict[str, Any], example: Example) -> None:
    assert get_dataset(name).example_from_row(row) == example


@pytest.mark.parametrize(("name", "row", "example"), ROWS)
def test_recorded_samples_beside_published_columns(
    name: str, row: dict[str, Any], example: Example, tmp_path: Path
) -> None:
    """With what the hint says where the gold label is in a column that samples have, too: --map label=answer."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row | {"text": "So the answer is 1.", "teacher": "t"}) + "\n")
    [question] = read_recorded(path, get_dataset(name), {"label": "answer"} if "answer" in row else {})
    assert question.example == example


def through_csv(row: dict[str, Any], cell: Any) -> str:
    """A CSV file of one row; `cell` writes what is no text."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(row))
    writer.writeheader()
    writer.writerow(
        {column: value if isinstance(value, str) or value is None else cell(value) for column, value in row.items()}
    )
    return buffer.getvalue()


def as_arrays(value: Any) -> Any:
    """As pandas reads Parquet: lists are arrays."""
    if isinstance(value, dict):
        return {key: as_arrays(inner) for key, inner in value.items()}
    return np.array([as_arrays(inner) for inner in value], dtype=object) if isinstance(value, list) else value


@pytest.mark.parametrize("form", ["parquet", "json", "csv of json", "csv of python", "csv of pandas"])
@pytest.mark.parametrize(("name", "row", "example"), ROWS)
def test_published_files_in_every_format(
    name: str, row: dict[str, Any], example: Example, form: str, tmp_path: Path
) -> None:
    path = tmp_path / ("a.parquet" if form == "parquet" else "a.json" if form == "json" else "a.csv")
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    elif form == "json":
        path.write_text(json.dumps([row]))
    else:
        cell = {"csv of json": json.dumps, "csv of python": str, "csv of pandas": lambda value: str(as_arrays(value))}[
            form
        ]
        path.write_text(through_csv(row, cell))
    [found] = get_dataset(name).load("train", str(path))
    assert (found.question, found.choices, found.label) == (example.question, example.choices, example.label)


def test_what_the_hub_and_pandas_make_of_a_split(tmp_path: Path) -> None:
    """Parquet, read by pandas and written as CSV and as lines of JSON."""
    rows = [
        {"question": f"q{i}", "choices": {"text": TEXTS, "label": LABELS}, "answerKey": key}
        for i, key in enumerate("ADB")
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    frame = pd.read_parquet(tmp_path / "a.parquet")
    frame.to_csv(tmp_path / "a.csv")
    frame.to_json(tmp_path / "a.json", orient="records", lines=True)
    frame.to_json(tmp_path / "b.json", orient="records")
    for name in ("a.parquet", "a.csv", "a.json", "b.json"):
        examples = list(get_dataset("openbookqa").load("train", str(tmp_path / name)))
        assert [(one.choices, one.label) for one in examples] == [
            (tuple(TEXTS), text) for text in ("pan", "lid", "pot")
        ]


@pytest.mark.parametrize(
    ("name", "row", "complaint"),
    [
        (
            "cqa",
            {"question": "q", "choices": OBJECTS, "answerKey": "E"},
            "label 'E' must be one of a, b, c, d, pan, pot, a pot lid, lid",
        ),
        ("cqa", {"question": {"text": "q"}, "choices": OBJECTS}, "question is an object without a stem; it has text"),
        (
            "arc",
            {"question": "q", "choices.text": "[pan", "answerKey": "A"},
            "choices.text is '[pan', which is no list",
        ),
        (
            "svamp",
            {"Question": "number0 and number1 ?", "Numbers": "4", "Answer": "4"},
            "Question has places for more numbers than the 1 of Numbers",
        ),
        ("boolq", {"question": "q", "passage": "p", "label": 2}, "label '2' must be one of yes, no"),
    ],
)
def test_what_cannot_be_read_is_refused(name: str, row: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadFile) as caught:
        get_dataset(name).example_from_row(row)
    assert str(caught.value) == complaint


@pytest.mark.parametrize(("answer", "gold"), [("(a)", "yes"), ("no", "no"), ("true", "yes"), ("False", "no")])
def test_yes_and_no_as_texts_say_them(answer: str, gold: str) -> None:
    assert get_dataset("boolq").parse(f"It says so. So the answer is {answer}.", ()).answer == gold
