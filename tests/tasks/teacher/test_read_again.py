"""Stored teacher samples are read again by the definition as it is now; nothing else about them changes."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from storage.datasets.definition import Example, Parsed
from storage.datasets.registry import get_dataset
from storage.errors import NothingToDo
from storage.rationales import rationale_row
from storage.schemas import RATIONALES
from storage.store import Store
from storage.votes import VoteRule, vote
from tasks.questions.stored import store_examples
from tasks.teacher.read_again import read_again

SVAMP = get_dataset("svamp")
# Text -> what an older parser may have read.
OLDER = {
    "5 * 6 = 30 birds.\n30 - 4 = 26 birds.\nA: 26": ("26", None),
    "So the answer is 20-25.": ("-5", None),
    "So the answer is ２６.": (None, "no answer found"),
    "So the answer is 26.": ("26", None),
}


def rows(store: Store) -> dict[str, dict[str, Any]]:
    found = store.query("SELECT * FROM rationales ORDER BY sample_index").to_pylist()
    return {row["text"]: row for row in found}


def with_samples(folder: Path, source: Any = "teacher") -> Store:
    store = Store(folder)
    stored = store_examples(store, SVAMP, "train", [Example("30 birds, 4 leave. How many stay?", (), "26")])
    store.append(
        RATIONALES,
        pa.Table.from_pylist(
            [
                rationale_row(
                    source,
                    sample_id=f"sample{index}",
                    example_id=stored.example_ids[0],
                    dataset="svamp",
                    split="train",
                    model="big",
                    sample_index=index,
                    text=text,
                    parsed=Parsed(text, *read),
                    seed=index,
                    finish_reason="stop",
                )
                for index, (text, read) in enumerate(OLDER.items())
            ],
            RATIONALES.schema,
        ),
    )
    return store


def test_what_reads_otherwise_is_revised_and_the_rest_stays(tmp_path: Path) -> None:
    store = with_samples(tmp_path)
    before = rows(store)
    assert vote(store, SVAMP, VoteRule(dataset="svamp")).unparsed == 1
    done = read_again(store, SVAMP)
    assert (done.samples, done.changed, done.answered, done.unanswered) == (4, 4, 1, 1)
    after = rows(store)
    assert [row["answer"] for row in after.values()] == ["26", None, "26", "26"]
    assert after["So the answer is 20-25."]["parse_error"] == "no single number"
    assert next(iter(after.values()))["rationale"] == "5 * 6 = 30 birds.\n30 - 4 = 26 birds."
    kept = ("sample_id", "example_id", "model", "seed", "finish_reason", "text", "sample_index")
    assert [{name: row[name] for name in kept} for row in before.values()] == [
        {name: row[name] for name in kept} for row in after.values()
    ]
    again = vote(store, SVAMP, VoteRule(dataset="svamp"))
    assert (again.single_accuracy, again.changed) == (3 / 4, 1)


def test_reading_twice_changes_nothing(tmp_path: Path) -> None:
    store = with_samples(tmp_path)
    read_again(store, SVAMP)
    assert read_again(store, SVAMP, "train").changed == 0


def test_recorded_samples_are_left_to_the_import(tmp_path: Path) -> None:
    store = with_samples(tmp_path, "recorded")
    with pytest.raises(NothingToDo, match="No teacher samples of 'svamp' are stored"):
        read_again(store, SVAMP)
    with pytest.raises(NothingToDo, match="'svamp', split 'test'"):
        read_again(with_samples(tmp_path / "other"), SVAMP, "test")
