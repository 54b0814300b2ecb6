"""Recorded samples become ordinary rows, once, whatever the file looks like."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.datasets.registry import get_dataset
from storage.errors import BadFile, NothingToDo
from storage.store import Store
from storage.votes import VoteRule, vote
from tasks.teacher.recorded import import_recorded
from tests.recorded_data import recorded_file

SVAMP = get_dataset("svamp")
NESTED = {
    "id": "q1",
    "question": "Ann has 3 apples and buys 4. How many has she?",
    "label": "7.0",
    "samples": [
        {"teacher": "big", "text": "3 + 4 = 7. So the answer is 7.", "answer": "7"},
        {"teacher": "big", "text": "3 + 4 = 7. So the answer is 7.", "answer": "7"},
        {"teacher": "big", "text": "4 - 3 = 1. So the answer is 1.", "answer": None},
        {"teacher": "other", "text": "I cannot say.", "answer": "7"},
    ],
}


def jsonl(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def stored(store: Store) -> list[dict[str, Any]]:
    sql = "SELECT model, answer, parse_error, text, sample_index FROM rationales ORDER BY example_id, sample_index"
    rows: list[dict[str, Any]] = store.query(sql).to_pylist()
    return rows


def test_nested_samples_are_parsed_and_equal_texts_stay_apart(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    file = jsonl(tmp_path / "a.jsonl", NESTED)
    summary = import_recorded(store, SVAMP, file, "train")
    assert (summary.questions, summary.labelled, summary.samples, summary.unparsed, summary.added) == (1, 1, 4, 1, 4)
    assert summary.teachers == {"big": 3, "other": 1}
    rows = stored(store)
    assert [row["answer"] for row in rows] == ["7", "7", "1", None]
    assert rows[3]["parse_error"]
    assert store.query("SELECT label FROM examples")["label"].to_pylist() == ["7"]


def test_importing_again_adds_nothing_and_other_answers_revise(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    file = jsonl(tmp_path / "a.jsonl", NESTED)
    import_recorded(store, SVAMP, file, "train")
    again = import_recorded(store, SVAMP, file, "train")
    assert (again.added, again.changed, again.unchanged) == (0, 0, 4)
    recorded = import_recorded(store, SVAMP, file, "train", answers="recorded")
    assert (recorded.added, recorded.changed, recorded.unchanged) == (0, 2, 2)
    rows = stored(store)
    assert [row["answer"] for row in rows] == ["7", "7", None, "7"]
    assert rows[2]["parse_error"] == "recorded without an answer"


def test_csv_and_parquet_with_one_sample_a_row_and_other_column_names(tmp_path: Path) -> None:
    rows = [
        {"problem": "How many is 2 + 2?", "gold": "4", "model": "m", "completion": f"It is {n}. The answer is {n}."}
        for n in (4, 4, 5)
    ]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    mapping = {"question": "problem", "label": "gold", "teacher": "model", "text": "completion"}
    store = Store(tmp_path / "store")
    first = import_recorded(store, SVAMP, str(tmp_path / "a.csv"), "train", mapping=mapping)
    assert (first.samples, first.added, first.teachers) == (3, 3, {"m": 3})
    second = import_recorded(store, SVAMP, str(tmp_path / "a.parquet"), "train", mapping=mapping)
    assert (second.samples, second.added, second.unchanged) == (3, 0, 3)
    assert [row["answer"] for row in stored(store)] == ["4", "4", "5"]


def test_a_label_that_arrives_later_is_added_and_never_lost_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    bare = jsonl(tmp_path / "bare.jsonl", {**NESTED, "label": None})
    import_recorded(store, SVAMP, bare, "train")
    assert vote(store, SVAMP, VoteRule(dataset="svamp")).majority_accuracy is None
    import_recorded(store, SVAMP, jsonl(tmp_path / "a.jsonl", NESTED), "train")
    assert vote(store, SVAMP, VoteRule(dataset="svamp")).majority_accuracy == 1.0
    import_recorded(store, SVAMP, bare, "train")
    assert store.query("SELECT label FROM examples")["label"].to_pylist() == ["7"]


def test_a_bad_line_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(NESTED) + "\n{not json\n")
    with pytest.raises(BadFile, match="line 2"):
        import_recorded(store, SVAMP, str(file), "train")
    assert store.query("SELECT count(*) AS n FROM rationales")["n"].to_pylist() == [0]


def test_questions_without_samples_are_refused(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", {"question": "How many?", "label": "1", "samples": []})
    with pytest.raises(NothingToDo, match="holds no samples"):
        import_recorded(Store(tmp_path / "store"), SVAMP, file, "train")


def test_recorded_svamp_votes_as_published(tmp_path: Path) -> None:
    """564 questions with ten samples of one teacher each: about 67% single, 79% for the majority of 5, with 3.7
    agreeing; and our own parser reads at least as well as the one that made the file. It reads a few texts less: of one
    that says "either 5 or 6" or "cannot be determined" the file has the last number, where we have none."""
    store = Store(tmp_path / "store")
    file = str(recorded_file("svamp_train"))
    rule = VoteRule(dataset="svamp", teachers=("gpt-3.5-turbo",), n=5, seed=0)
    import_recorded(store, SVAMP, file, "train", answers="recorded")
    recorded = vote(store, SVAMP, rule)
    assert recorded.examples == 564
    assert recorded.samples == 5 * 564
    assert recorded.single_accuracy == pytest.approx(0.67, abs=0.02)
    assert recorded.majority_accuracy == pytest.approx(0.79, abs=0.03)
    assert recorded.mean_positives == pytest.approx(3.7, abs=0.1)
    import_recorded(store, SVAMP, file, "train", answers="parsed")
    parsed = vote(store, SVAMP, rule)
    assert parsed.single_accuracy is not None
    assert parsed.majority_accuracy is not None
    assert recorded.single_accuracy is not None
    assert recorded.majority_accuracy is not None
    assert parsed.single_accuracy >= recorded.single_accuracy
    assert parsed.majority_accuracy >= recorded.majority_accuracy
    assert parsed.unparsed <= 0.01 * parsed.samples


@pytest.mark.parametrize(
    ("name", "dataset", "split", "questions", "floor"),
    [
        ("cqa_train", "cqa", "train", 6000, 0.75),
        ("esnli_train", "esnli", "train", 7000, 0.8),
        ("anli1_train", "anli1", "train", 1000, 0.4),
    ],
)
def test_every_recorded_layout_is_read_without_a_map(
    tmp_path: Path, name: str, dataset: str, split: str, questions: int, floor: float
) -> None:
    store = Store(tmp_path / "store")
    named = get_dataset(dataset)
    summary = import_recorded(store, named, str(recorded_file(name)), split)
    assert summary.questions + summary.repeated_questions == questions
    voted = vote(store, named, VoteRule(dataset=dataset))
    assert voted.examples == summary.questions
    assert voted.majority_accuracy is not None
    assert voted.majority_accuracy > floor
