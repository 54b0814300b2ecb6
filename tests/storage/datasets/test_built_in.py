"""The built-in datasets: prompts, student inputs, published columns, the hub, and files given by path."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.datasets.definition import Dataset
from storage.datasets.registry import BUILT_IN, get_dataset
from storage.errors import BadFile, UnknownName

PUBLIC = sorted(set(BUILT_IN) - {"lab"})


@pytest.mark.parametrize("name", PUBLIC)
def test_prompt_of_every_dataset(name: str) -> None:
    dataset = get_dataset(name)
    choices = ("sea", "land") if dataset.answer_kind == "choice" else ()
    prompt = dataset.teacher_prompt("Which one?", choices)
    assert 3 <= len(prompt.turns) <= 7
    assert prompt.plain.startswith(prompt.system)
    assert prompt.plain.endswith(f"Q: {dataset.student_input('Which one?', choices)}\nA:")
    assert prompt.plain.count("\nQ: ") == len(prompt.turns) + 1
    assert not any(stop in reply for _, reply in prompt.turns for stop in prompt.stop)
    roles = [message["role"] for message in prompt.messages()]
    assert roles == ["system", *["user", "assistant"] * len(prompt.turns), "user"]


@pytest.mark.parametrize("name", PUBLIC)
def test_exemplars_read_back_and_leave_their_rationale(name: str) -> None:
    dataset = get_dataset(name)
    for asked, reply in dataset.teacher_prompt("?", ()).turns:
        choices = tuple(line.split(") ", 1)[1] for line in asked.split("\n") if line.startswith("("))
        parsed = dataset.parse(reply, choices)
        assert parsed.answer is not None
        assert reply.startswith(parsed.rationale)
        assert "answer is" not in parsed.rationale


def test_choices_are_lettered_for_teacher_and_student_alike() -> None:
    dataset = get_dataset("cqa")
    expected = "Where?\nAnswer choices:\n(a) sea\n(b) land"
    assert dataset.student_input("Where?", ("sea", "land")) == expected
    assert dataset.teacher_prompt("Where?", ("sea", "land")).question == expected


def test_load_from_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"question": f"{i} + 0?", "label": i}) + "\n" for i in range(5)))
    examples = list(get_dataset("svamp").load("anything", str(path), limit=2))
    assert [example.label for example in examples] == ["0", "1"]


def test_errors_of_a_path_name_the_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "q", "label": "1"}\n{"question": "q", "label": "one or two"}\n')
    with pytest.raises(BadFile) as caught:
        list(get_dataset("svamp").load("train", str(path)))
    assert str(caught.value) == f"{path} row 2: label 'one or two' must be a number"


def hub(monkeypatch: pytest.MonkeyPatch, root: Path, rows: int) -> None:
    """A hub that has SVAMP with that many training rows, without a network."""
    folder = root / "default" / "train"
    folder.mkdir(parents=True)
    table = [{"ID": str(i), "Body": f"{i} pens.", "Question": "How many?", "Answer": float(i)} for i in range(rows)]
    pq.write_table(pa.Table.from_pylist(table), folder / "0000.parquet")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(root))


def labels(dataset: Dataset, split: str, limit: int | None = None) -> list[str | None]:
    return [example.label for example in dataset.load(split, limit=limit)]


def test_load_from_the_hub_cuts_a_validation_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, tmp_path, 700)
    svamp = get_dataset("svamp")
    train, validation = labels(svamp, "train"), labels(svamp, "validation")
    assert (len(train), len(validation)) == (600, 100)
    assert not set(train) & set(validation)
    assert labels(svamp, "train", limit=3) == ["0", "1", "2"]
    with pytest.raises(BadFile, match=r"has no Parquet files under default/test\. Pass a file with --path instead"):
        labels(svamp, "test")


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(BadFile) as caught:
        labels(get_dataset("esnli"), "train")
    assert str(caught.value) == (
        "esnli/esnli cannot be loaded from the Hugging Face hub (ConnectionError). "
        "Pass a file with --path instead (JSONL, CSV or Parquet)."
    )


def test_unknown_names() -> None:
    with pytest.raises(UnknownName) as caught:
        get_dataset("swamp")
    assert str(caught.value) == (
        "Unknown dataset 'swamp'. Did you mean 'svamp'? Allowed: anli1, anli2, anli3, aqua, arc, arc-easy, boolq, cqa, "
        "esnli, gsm8k, lab, openbookqa, strategyqa, svamp, svamp-equation. "
        "Or reasoning-gym:NAME, or the path of a YAML file that describes your own."
    )
    with pytest.raises(UnknownName, match=r"Unknown split 'tran'\. Did you mean 'train'\?"):
        get_dataset("svamp").load("tran")
