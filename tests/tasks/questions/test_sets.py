"""Who trains, who validates and who tests: parts without overlap, that stay as they are when questions are added."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from storage.errors import NothingToDo
from storage.ids import example_id
from storage.schemas import EXAMPLES
from storage.shards import Shard
from storage.store import Store, now
from tasks.questions.sets import PASSED_ON, DatasetConfig, Part
from tests.lasting import lasting_folder

ALL = 600


def stored(root: Path, numbers: Iterable[int], split: str = "train") -> Store:
    """A store with some questions more."""
    store = Store(root)
    rows = [
        {"example_id": example_id("lab", split, f"question {number}", ()), "dataset": "lab", "split": split,
         "question": f"question {number}", "choices": [], "label": "1", "extra": "{}", "created_at": now()}
        for number in numbers
    ]  # fmt: skip
    store.append(EXAMPLES, pa.Table.from_pylist(rows, EXAMPLES.schema))
    return store


@cache
def many() -> Store:
    root = lasting_folder()
    stored(root, range(20), "validation")
    stored(root, range(30), "test")
    return stored(root, range(ALL))


def ids(store: Store, config: DatasetConfig) -> dict[Part, list[str]]:
    found: dict[Part, list[str]] = {}
    for part in config.splits():
        chosen = config.question_set("lab", part)
        try:
            found[part] = chosen.ids(store)
        except NothingToDo:
            found[part] = []
    return found


# ---- shards ----


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 40), st.integers(0, 39))
def test_every_question_is_in_one_shard_and_a_shard_is_its_halves(of: int, number: int) -> None:
    questions, store = DatasetConfig(name="lab").question_set("lab", "train"), many()
    shards = [questions.ids(store, Shard(number=one, of=of)) for one in range(of)]
    assert sorted(key for shard in shards for key in shard) == sorted(questions.ids(store))
    assert max(map(len, shards)) < 2 * ALL / of + 12, "they are about as large"
    one = Shard(number=number % of, of=of)
    halves = [questions.ids(store, half) for half in one.halves()]
    assert sorted(halves[0] + halves[1]) == sorted(shards[one.number])
    assert not set(halves[0]) & set(halves[1])


# ---- folds ----


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 12), st.floats(0.02, 0.6))
def test_every_question_is_in_one_test_fold(folds: int, share: float) -> None:
    tested: list[str] = []
    for fold in range(folds):
        parts = ids(many(), DatasetConfig(name="lab", folds=folds, fold=fold, validation_share=share))
        together = [key for part in parts.values() for key in part]
        assert len(together) == len(set(together)) == ALL, "a partition"
        assert len(parts["test"]) == pytest.approx(ALL / folds, rel=0.5, abs=12), "of about equal sizes"
        assert len(parts["validation"]) == pytest.approx(share * (ALL - len(parts["test"])), rel=0.5, abs=12)
        tested += parts["test"]
    assert len(tested) == len(set(tested)) == ALL


@pytest.mark.parametrize("config", [{"folds": 5, "fold": 2}, {"validation_split": None, "validation_share": 0.2}])
def test_nobody_moves_when_questions_are_added(tmp_path: Path, config: dict[str, Any]) -> None:
    made = DatasetConfig(name="lab", test_split="train" if "folds" in config else None, **config)
    before = ids(stored(tmp_path, range(100)), made)
    after = ids(stored(tmp_path, range(100, 400)), made)
    for part, keys in before.items():
        assert set(keys) < set(after[part])
    old = {key for keys in before.values() for key in keys}
    for part, keys in after.items():
        assert old & set(keys) == set(before[part])


def test_test_folds_do_not_depend_on_the_validation_share() -> None:
    found = [
        set(ids(many(), DatasetConfig(name="lab", folds=4, fold=1, validation_share=share))["test"])
        for share in (0.05, 0.5)
    ]
    assert found[0] == found[1]


def test_a_fold_must_exist() -> None:
    with pytest.raises(ValidationError, match=r"fold must be below folds \(5\), not 5"):
        DatasetConfig(name="lab", folds=5, fold=5)
    with pytest.raises(ValidationError):
        DatasetConfig(name="lab", folds=1)


# ---- splits ----


def test_the_datasets_own_splits_are_taken_whole() -> None:
    parts = ids(many(), DatasetConfig(name="lab"))
    assert [len(parts[part]) for part in ("train", "validation", "test")] == [ALL, 20, 30]


def test_without_a_validation_split_a_share_of_the_training_questions_validates() -> None:
    config = DatasetConfig(name="lab", validation_split=None, validation_share=0.25)
    parts = ids(many(), config)
    assert set(parts["train"]).isdisjoint(parts["validation"])
    assert len(parts["train"]) + len(parts["validation"]) == ALL
    assert 0.2 * ALL < len(parts["validation"]) < 0.3 * ALL
    assert len(parts["test"]) == 30


def test_without_a_test_split_there_is_no_test() -> None:
    assert DatasetConfig(name="lab", test_split=None).splits() == {"train": "train", "validation": "validation"}
    folds = DatasetConfig(name="lab", test_split=None, folds=3)
    assert set(folds.splits()) == {"train", "validation", "test"}, "folds have one"


def test_a_limit_takes_the_first_by_hash_and_fewer_of_the_same_with_a_lower_one() -> None:
    whole = ids(many(), DatasetConfig(name="lab"))
    limited = ids(many(), DatasetConfig(name="lab", limit=50, validation_limit=7, test_limit=9))
    assert limited == {"train": whole["train"][:50], "validation": whole["validation"][:7], "test": whole["test"][:9]}
    assert ids(many(), DatasetConfig(name="lab", limit=20))["train"] == limited["train"][:20]
    # The order is of no meaning: not that in which they came.
    assert whole["train"] != [example_id("lab", "train", f"question {number}", ()) for number in range(ALL)]


def test_a_limit_inside_a_fold_takes_of_that_part_only() -> None:
    whole = ids(many(), DatasetConfig(name="lab", folds=4))
    limited = ids(many(), DatasetConfig(name="lab", folds=4, limit=30, validation_limit=5, test_limit=10))
    assert limited == {
        "train": whole["train"][:30], "validation": whole["validation"][:5], "test": whole["test"][:10]
    }  # fmt: skip


def test_no_question_says_what_to_do() -> None:
    config = DatasetConfig(name="lab", train_split="dev")
    with pytest.raises(NothingToDo) as caught:
        config.question_set("lab", "train").ids(many())
    assert str(caught.value) == (
        "No stored questions of 'lab', split 'dev'; store some with `qcrd sample` or `qcrd import`, or name another "
        "split in the configuration."
    )
    carved = DatasetConfig(name="lab", train_split="dev", validation_split=None)
    with pytest.raises(NothingToDo, match="No validation questions of 'lab', split 'dev'"):
        carved.question_set("lab", "validation").ids(many())


@pytest.mark.parametrize(
    "wrong", [{"validation_share": 0.0}, {"validation_share": 1.0}, {"limit": 0}, {"fold": -1}, {"folds": 2, "fold": 2}]
)
def test_what_is_not_allowed_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DatasetConfig(name="lab", **wrong)


@pytest.mark.parametrize(
    "same",
    [
        {"test_split": "train"},
        {"validation_split": "train"},
        {"validation_split": "test"},
        {"validation_split": None, "test_split": "train"},
    ],
)
def test_questions_that_are_trained_on_are_not_tested_on(same: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="the same questions would be used twice"):
        DatasetConfig(name="lab", **same)
    DatasetConfig(name="lab", folds=3, **same)


# ---- what `qcrd answer` has passed on ----


def test_what_was_passed_on_is_no_question_of_a_part_in_whatever_spelling(tmp_path: Path) -> None:
    stored(tmp_path, range(5))
    store = stored(tmp_path, range(5, 8), "test")
    asked = ["question 2", " Question  2?", "question 6.", "QUESTION 6", "question 9", "question 10"]
    rows: list[dict[str, Any]] = [
        {"example_id": example_id("lab", PASSED_ON, text, ()), "dataset": "lab", "split": PASSED_ON, "question": text,
         "choices": [], "label": None, "extra": "{}", "created_at": now()}
        for text in asked
    ]  # fmt: skip
    store.append(EXAMPLES, pa.Table.from_pylist(rows, EXAMPLES.schema))
    config = DatasetConfig(name="lab", validation_split=None)
    with store.connect() as con:
        sql = f"SELECT question FROM {config.passed_on_set('lab').sql(store)} ORDER BY question"
        assert store.execute(con, sql)["question"].to_pylist() == ["question 10", "question 9"]
    assert not set(config.passed_on_set("lab").ids(store)) & set(config.question_set("lab", "train").ids(store))


def test_their_split_is_nobody_elses() -> None:
    with pytest.raises(ValidationError, match="is the split of what `qcrd answer` passes on"):
        DatasetConfig(name="lab", train_split=PASSED_ON)
