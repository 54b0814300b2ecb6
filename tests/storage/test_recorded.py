"""Recorded teacher samples: both layouts, column mappings, and the text of every complaint."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.datasets.registry import get_dataset
from storage.errors import BadFile, UnknownName
from storage.recorded import RecordedQuestion, RecordedSample, read_recorded


def jsonl(path: Path, *rows: Mapping[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path, dataset: str, **mapping: str) -> list[RecordedQuestion]:
    return list(read_recorded(path, get_dataset(dataset), mapping))


def test_nested(tmp_path: Path) -> None:
    samples = [{"teacher": "a", "text": "It is 2.", "answer": "2"}, {"teacher": "b", "text": "?", "answer": None}]
    path = jsonl(tmp_path / "r.jsonl", {"id": "s-1", "question": "1 + 1?", "label": "2.0", "samples": samples})
    [question] = read(path, "svamp")
    assert question.example.question == "1 + 1?"
    assert question.example.label == "2"
    assert question.example.extra == {"id": "s-1"}
    assert question.samples == (RecordedSample("a", "It is 2.", "2"), RecordedSample("b", "?", None))


def test_flat_csv_with_choices_and_mapping(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text(
        "q,choices,label,model,completion,answer\n"
        'Where?,sea|land,B,m1,"It is land, (b).",land\n'
        'Where?,"[""sea"", ""land""]",land,,Sea.,\n'
    )
    first, second = read(path, "cqa", question="q", text="completion", teacher="model")
    assert first.example == second.example
    assert first.example.choices == ("sea", "land")
    assert first.example.label == "land"
    assert first.samples == (RecordedSample("m1", "It is land, (b).", "land"),)
    assert second.samples == (RecordedSample("recorded", "Sea.", None),)


def test_flat_parquet_of_inference(tmp_path: Path) -> None:
    row = {"premise": "A dog runs.", "hypothesis": "It sits.", "label": 2, "text": "It runs."}
    pq.write_table(pa.Table.from_pylist([row, row | {"label": -1}]), tmp_path / "r.parquet")
    first, second = read(tmp_path / "r.parquet", "esnli")
    assert first.example.question == "Premise: A dog runs.\nHypothesis: It sits."
    assert first.example.label == "contradiction"
    assert second.example.label is None


def test_mapping_reaches_into_nested_samples(tmp_path: Path) -> None:
    row = {"question": "1 + 1?", "teacher": "t", "runs": [{"completion": "2"}, {"completion": "3"}]}
    [question] = read(jsonl(tmp_path / "r.jsonl", row), "svamp", samples="runs", text="completion")
    assert question.samples == (RecordedSample("t", "2", None), RecordedSample("t", "3", None))
    assert question.example.label is None


def test_samples_may_be_plain_texts_or_json_in_csv(tmp_path: Path) -> None:
    [question] = read(jsonl(tmp_path / "r.jsonl", {"question": "q", "samples": ["one", "two"]}), "svamp")
    assert [sample.text for sample in question.samples] == ["one", "two"]
    (tmp_path / "r.csv").write_text('question,samples\nq,"[""one"", ""two""]"\n')
    assert read(tmp_path / "r.csv", "svamp")[0].samples == question.samples


def test_half_a_character_in_a_csv_cell_of_json(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text('question,samples\nq,"[""\\ud800""]"\n')
    assert read(tmp_path / "r.csv", "svamp")[0].samples[0].text == "\ufffd"


def test_bytes_are_utf8(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    row = {"question": "Größe?".encode(), "label": b"2", "text": "2 ü".encode(), "answer": b"2", "teacher": b"t"}
    pq.write_table(pa.Table.from_pylist([row]), path)
    [question] = read(path, "svamp")
    assert (question.example.question, question.example.label) == ("Größe?", "2")
    assert question.samples == (RecordedSample("t", "2 ü", "2"),)
    pq.write_table(pa.Table.from_pylist([row | {"text": b"\xff"}]), path)
    with pytest.raises(BadFile, match="row 1: text holds bytes that are not UTF-8 text"):
        read(path, "svamp")


def test_rows_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"question": "q", "text": "1"}\nbroken\n')
    rows = read_recorded(path, get_dataset("svamp"))
    assert next(rows).samples[0].text == "1"
    with pytest.raises(BadFile, match="line 2 is not JSON"):
        next(rows)


@pytest.mark.parametrize(
    ("row", "dataset", "message"),
    [
        (
            {"qestion": "q", "text": "t"},
            "svamp",
            "row 1: no column 'question'. Did you mean 'qestion'? Columns: qestion. "
            "Name the right one with --map question=COLUMN.",
        ),
        (
            {"question": "q", "txt": "t"},
            "svamp",
            "row 1: no column 'text'. Did you mean 'txt'? Columns: question, txt. "
            "Name the right one with --map text=COLUMN.",
        ),
        ({"question": "", "text": "t"}, "svamp", "row 1: question is empty"),
        ({"question": "q", "text": "t", "label": "many"}, "svamp", "row 1: label 'many' must be a number"),
        (
            {"premise": "p", "hypothesis": "h", "text": "t", "label": "maybe so"},
            "anli1",
            "row 1: label 'maybe so' must be one of entailment, neutral, contradiction",
        ),
        (
            {"question": "q", "choices": ["a", "b"], "label": "sea", "text": "t"},
            "cqa",
            "row 1: label 'sea' must be one of a, b",
        ),
        (
            {"question": "q", "choices": 3, "text": "t"},
            "cqa",
            "row 1: choices must be a list or texts separated by '|', not int",
        ),
        (
            {"question": "q", "choices": ["a", None], "text": "t"},
            "cqa",
            "row 1: choices must be at least two texts, none of them empty; got ['a', '']",
        ),
        ({"question": {"q": 1}, "text": "t"}, "svamp", "row 1: question must be a text, not dict"),
        ({"question": "q", "text": "t", "label": {}}, "svamp", "row 1: label must be a text, not dict"),
        ({"question": "q", "text": {"a": 1}}, "svamp", "row 1: text must be a text, not dict"),
        ({"question": "q", "text": "t", "answer": [1]}, "svamp", "row 1: answer must be a text, not list"),
        ({"question": "q", "text": "t", "teacher": ["x"]}, "svamp", "row 1: teacher must be a text, not list"),
        ({"question": "q", "samples": 3}, "svamp", "row 1: samples must be a list, not int"),
        ({"question": "q", "samples": [3]}, "svamp", "row 1: a sample must be an object or a text, not int"),
    ],
)
def test_bad_rows(tmp_path: Path, row: dict[str, Any], dataset: str, message: str) -> None:
    path = jsonl(tmp_path / "r.jsonl", row)
    with pytest.raises(BadFile) as caught:
        read(path, dataset)
    assert str(caught.value) == f"{path} {message}"


def test_mapping_of_an_unknown_field_or_column(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "r.jsonl", {"question": "q", "completion": "t"})
    with pytest.raises(
        UnknownName, match=r"Unknown field 'txet'\. Did you mean 'text'\? Allowed: answer, finish_reason, "
    ):
        read(path, "svamp", txet="completion")
    with pytest.raises(BadFile, match=r"no column 'completions'\. Did you mean 'completion'\?"):
        read(path, "svamp", text="completions")
