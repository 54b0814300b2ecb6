"""What is guessed from files that nobody prepared, and where nothing is guessed."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.datasets.file_columns import FileColumns, count_columns
from storage.datasets.guessing import NONE, STEPS, check_given, columns_in, joined, listed
from storage.datasets.label_columns import classes, kind_of
from storage.errors import UnknownName, UsageError


def seen(folder: Path, rows: list[dict[str, Any]]) -> FileColumns:
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return count_columns(str(path))


def guesses(file: FileColumns, **chosen: str) -> dict[str, str]:
    """All guesses but those that say "none"."""
    for step, guess in STEPS.items():
        if step not in chosen:
            chosen[step] = guess(file, chosen).value
    return {step: value for step, value in chosen.items() if value != NONE}


def rows(count: int, **columns: Any) -> list[dict[str, Any]]:
    """Rows in which each column takes its values in turn; a text may hold the row's number."""
    made = []
    for number in range(count):
        row = {}
        for name, values in columns.items():
            value = values[number % len(values)] if isinstance(values, list) else values
            row[name] = value.format(number) if isinstance(value, str) else value
        made.append(row)
    return made


LONG = "the pump of building {} makes a noise at night"


@pytest.mark.parametrize(
    ("made", "guessed"),
    [
        (
            rows(20, id="{}", ticket=LONG, priority=["low", "high", "high"]),
            {"question": "ticket", "label": "priority", "answers": "label", "labels": "high,low"},
        ),
        (  # two columns make the question, one of them by its first word
            rows(20, Betreff="Pumpe {}", Beschreibung_des_Problems=LONG, Klasse=["Haus", "Hof, Garten"]),
            {
                "question": "Betreff,Beschreibung_des_Problems",
                "label": "Klasse",
                "answers": "label",
                "labels": "Haus|Hof, Garten",
            },
        ),
        (
            rows(9, premise=LONG, hypothesis="It is {}.", gold_label=["yes", "no", "-"], pairID="{}"),
            {"question": "premise,hypothesis", "label": "gold_label", "answers": "label", "labels": "yes,no"},
        ),
        (
            rows(9, question="is it {}", passage=LONG, answer=[True, False]),
            {"question": "passage,question", "label": "answer", "answers": "label", "labels": "true,false"},
        ),
        # few whole numbers, each often, are classes; others are numbers
        (
            rows(30, text=LONG, stars=[3, 1, 2, 5, 4]),
            {"question": "text", "label": "stars", "answers": "label", "labels": "1,2,3,4,5"},
        ),
        (rows(9, problem=LONG, result=[3, 1.5, 12]), {"question": "problem", "label": "result", "answers": "number"}),
        (rows(60, problem=LONG, result=["{}.50"]), {"question": "problem", "label": "result", "answers": "number"}),
        # no name says anything: the longest texts, and values that repeat
        (
            rows(20, a="{}", b=LONG, c=["red", "blue"], d="x{}"),
            {"question": "b", "label": "c", "answers": "label", "labels": "red,blue"},
        ),
        # choices: a column, columns; labels that count them
        (
            rows(9, question=LONG, options=[["sea", "land"], ["sky", "sea"]], answer=["a", "B"]),
            {"question": "question", "choices": "options", "label": "answer", "answers": "choice"},
        ),
        (
            rows(9, question=LONG, choices=[["sea", "land", "sky"]], target=[0, 1, 2]),
            {
                "question": "question",
                "choices": "choices",
                "label": "target",
                "answers": "choice",
                "choice-labels": "0,1,2",
            },
        ),
        (
            rows(9, question=LONG, choices=[["7", "8"], ["1", "2"]], target=["8", "1"]),
            {"question": "question", "choices": "choices", "label": "target", "answers": "choice"},
        ),
        (
            rows(9, question=LONG, option_1="sea", option_2="land", option_3="", right_one=["1", "2"], correct=[0, 2]),
            {
                "question": "question",
                "choices": "option_1,option_2,option_3",
                "label": "correct",
                "answers": "choice",
                "choice-labels": "0,1,2",
            },
        ),
        (
            rows(9, question=LONG, A="sea", B="land", C="sky", answer=["A", "C"]),
            {"question": "question", "choices": "A,B,C", "label": "answer", "answers": "choice"},
        ),
        # several labels in a cell, in lists, in lists of objects as issue trackers have them
        (
            rows(20, text=LONG, topics=["pump, light", "light", "pump", "door; pump", "door"]),
            {"question": "text", "label": "topics", "answers": "labels", "labels": "pump,light,door"},
        ),
        (
            rows(20, text=LONG, Merkmale=["['pump', 'x']", "[]", "['x']", "['door', 'pump']"], id="{}"),
            {"question": "text", "label": "Merkmale", "answers": "labels", "labels": "pump,x,door"},
        ),
        (
            rows(20, title="No {}", body=LONG, labels=[[{"id": 1, "name": "pump"}], [], [{"name": "door"}]]),
            {"question": "title,body", "label": "labels", "answers": "labels", "labels": "pump,door"},
        ),
        (  # a comma in a class: no other cell has a part of it
            rows(20, text=LONG, team=["buying, storing", "cleaning"]),
            {"question": "text", "label": "team", "answers": "label", "labels": "buying, storing|cleaning"},
        ),
        # what is in objects; the last word of a name; a name with a unit
        (
            [{"case": {"title": "Pump", "body": LONG.format(i), "no": i}, "by": "ab"[i % 2]} for i in range(20)],
            {"question": "case.title,case.body", "label": "by", "answers": "label", "labels": "a,b"},
        ),
        (
            rows(20, Anliegen=LONG, Bearbeiter=["Ina", "Tom"], **{"Zuständiges Team": ["Nord", "Süd"]}),
            {"question": "Anliegen", "label": "Zuständiges Team", "answers": "label", "labels": "Nord,Süd"},
        ),
        (
            rows(30, Aufgabe=LONG, **{"Ergebnis (EUR)": ["{},50"]}),
            {"question": "Aufgabe", "label": "Ergebnis (EUR)", "answers": "number"},
        ),
        # a column that says train and test
        (
            rows(9, question=LONG, label=[4, 5, 6], part=["Train", "dev", "test"]),
            {"question": "question", "label": "label", "answers": "number", "split": "part"},
        ),
    ],
)
def test_guesses(tmp_path: Path, made: list[dict[str, Any]], guessed: Mapping[str, str]) -> None:
    assert guesses(seen(tmp_path, made)) == guessed


@pytest.mark.parametrize(
    ("made", "step", "doubt"),
    [
        (
            rows(9, text=LONG, options="red, blue", label=["x", "y"]),
            "choices",
            "options may be the choices, but cannot be",
        ),
        (
            rows(20, text=LONG, team=["buying, storing", "cleaning"]),
            "answers",
            "'buying, storing' is taken as one class",
        ),
        (
            rows(50, text=LONG, team=["a"] * 24 + ["b"] * 25 + ["bb"]),
            "labels",
            "Few rows have bb (1): if it is a mistake",
        ),
        (rows(20, text=LONG, team=["cleaning", "storing"]), "answers", ""),
    ],
)
def test_what_a_person_should_look_at_is_said(
    tmp_path: Path, made: list[dict[str, Any]], step: str, doubt: str
) -> None:
    file = seen(tmp_path, made)
    guess = STEPS[step](file, {"choices": NONE, "question": "text"} | guesses(file))
    assert guess.doubt.startswith(doubt)
    assert bool(guess.doubt) == bool(doubt)


def test_what_was_given_goes_before_and_is_built_on(tmp_path: Path) -> None:
    file = seen(tmp_path, rows(20, question=LONG, comment=LONG, label=["x", "y"], level=["1", "2"]))
    assert guesses(file, question="comment", label="level") == {
        "question": "comment",
        "label": "level",
        "answers": "label",
        "labels": "1,2",
    }
    assert guesses(file, label="question", answers="label", labels="a,b")["question"] == "comment"


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        (rows(20, text=LONG, priority=["a", "b"], queue=["x", "y"]), "could be the label: priority, queue. Name"),
        (rows(20, text=LONG, spans=[[[1, 2]], []]), "Its columns: text, spans. Lists, as in spans, are none."),
        (rows(9, text=LONG, answer="as {}"), "holds texts that are neither numbers nor a few classes, such as 'as 0'"),
        (rows(9, number=[1, 2]), "holds texts to ask about; name one with --question. Its columns: number."),
        (rows(9, text=LONG, options=[["sea", "land", "sky"]], label=[1, 2]), "tell whether the first is 0 or 1"),
        (rows(9, text=LONG, label="same"), "label of "),
        (rows(20, text=LONG, pump=[0, 1], door=[1, 1, 0]), "make one column of them, such as: billing,"),
    ],
)  # fmt: skip
def test_nothing_is_guessed_where_two_would_do_or_none(
    tmp_path: Path, made: list[dict[str, Any]], complaint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        guesses(seen(tmp_path, made))
    assert complaint in str(caught.value)
    assert "--" in str(caught.value)


def test_without_labels_the_kind_must_be_said(tmp_path: Path) -> None:
    file = seen(tmp_path, rows(20, text=LONG))
    with pytest.raises(UsageError, match="say --answers number or label"):
        guesses(file, label=NONE)
    with pytest.raises(UsageError, match="list the classes: --labels low,high"):
        guesses(file, label=NONE, answers="label")
    assert guesses(file, label=NONE, answers="number") == {"question": "text", "answers": "number"}


@pytest.mark.parametrize(
    ("step", "value", "complaint"),
    [
        ("label", "prioriy", "Unknown column of --label 'prioriy'. Did you mean 'priority'? Allowed: priority, text."),
        ("question", "none", "Unknown column of --question 'none'."),
        ("question", "Ticket: {txt}", "Unknown column of --question 'txt'. Did you mean 'text'?"),
        ("answers", "lable", "Unknown value of --answers 'lable'. Did you mean 'label'?"),
        ("labels", "low", "--labels takes at least two, separated by commas, not 'low'."),
    ],
)
def test_what_is_given_is_checked(tmp_path: Path, step: str, value: str, complaint: str) -> None:
    file = seen(tmp_path, rows(4, text=LONG, priority=["a", "b"]))
    with pytest.raises(UsageError) as caught:
        check_given(file, step, value)
    assert str(caught.value).startswith(complaint)
    assert isinstance(caught.value, UnknownName) or step == "labels"


def test_spellings_of_one_class_are_one(tmp_path: Path) -> None:
    values = ["High", "high ", "HIGH", "high", "low", "-", "", None]
    column = seen(tmp_path, [{"a": value} for value in values]).columns["a"]
    assert classes(column) == ["high", "low"]
    assert kind_of(column) == "label"
    floats = seen(tmp_path, [{"a": value} for value in (10.0, 2.0, 2, -1, None) * 3]).columns["a"]
    assert (classes(floats), kind_of(floats)) == (["2", "10"], "label")


def test_columns_are_counted_over_all_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *([str(i), f"t{i % 7}" * 3] for i in range(3000))])
    counted = count_columns(str(path))
    assert counted.rows == 3000
    assert len(counted.first) == 5
    assert counted.columns["id"].many
    assert counted.columns["id"].is_number
    assert dict(counted.columns["text"].values) == {f"t{i}" * 3: 3000 // 7 + (i < 3000 % 7) for i in range(7)}


@given(
    st.lists(
        st.text(st.characters(exclude_characters="|", exclude_categories=["Cs", "Cc", "Z"]), min_size=1), min_size=2
    )
)
def test_lists_of_names_are_read_as_they_were_joined(names: list[str]) -> None:
    assert listed(joined(names)) == names


def test_a_column_named_like_a_list_is_one_column(tmp_path: Path) -> None:
    file = seen(tmp_path, [{"a,b": "x", "a": "y", "c": "z"}])
    assert columns_in(file, "a,b") == ["a,b"]
    assert columns_in(file, "a, c") == ["a", "c"]
    assert columns_in(file, "{a} of {c}") == ["a", "c"]
