"""Votes on more samples than memory holds: the rows of a vote on a few; killed anywhere, it leaves nothing behind."""

import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.checking import check_store
from storage.datasets.definition import LABEL_SETS, Dataset
from storage.datasets.registry import get_dataset
from storage.files import Files
from storage.schemas import RATIONALES, VOTES
from storage.shards import Shard
from storage.spooled import Spooled
from storage.store import Store, now
from storage.vote_sql import NO_RATIONALE
from storage.vote_summary import VoteSummary, VoteSums
from storage.votes import VoteRule, splits_to_vote_on, summarised, vote, vote_on_split
from tests.storage.test_votes import RATIONALES_BY_HASH, Sample, fill

SVAMP = get_dataset("svamp")
OWN_EQUALITY = replace(SVAMP, compares_strings=False, equal=lambda a, b, extra: abs(int(a) - int(b)) <= extra["within"])
SETS = replace(SVAMP, answer_kind=LABEL_SETS)
EXTRA = '{"within": 1}'


def in_groups(samples: int) -> Any:
    """Votes on about so many samples at a time."""
    return patch("storage.votes.SAMPLES_AT_ONCE", samples)


def in_shards(of: int) -> Callable[[Store, Dataset, VoteRule], VoteSummary]:
    """`vote`, but in so many shards, the last one first."""

    def voting(store: Store, dataset: Dataset, rule: VoteRule) -> VoteSummary:
        splits, sums = splits_to_vote_on(store, dataset), VoteSums()
        for split in splits:
            for shard in reversed(Shard.all(of)):
                sums.update(vote_on_split(Store(store.files.given), dataset, rule, split, shard))
        return summarised(store, dataset, rule, splits, sums)

    return voting


def voted(store: Store) -> list[dict[str, Any]]:
    """The stored votes, apart from when they were made."""
    rows = store.query("SELECT * EXCLUDE (created_at) FROM votes ORDER BY example_id, vote_id").to_pylist()
    # The last digit of a sum depends on its order.
    return [row | {"entropy": row["entropy"] and round(row["entropy"], 12)} for row in rows]


@st.composite
def stored_samples(draw: st.DrawFn, answers: list[str | None]) -> tuple[list[Sample], dict[str, str | None]]:
    """Samples of a few examples, and their labels."""
    samples: list[Sample] = []
    labels: dict[str, str | None] = {}
    for example in range(draw(st.integers(1, 5))):
        labels[f"e{example}"] = draw(st.sampled_from([None, "1", "2"]))
        for index in range(draw(st.integers(1, 6))):
            text = draw(st.sampled_from([1, 2, 3, NO_RATIONALE]))
            samples.append(
                {"sample_id": f"s{example}-{index}", "example_id": f"e{example}", "sample_index": index,
                 "answer": draw(st.sampled_from(answers)), "rationale_hash": text, "model": draw(st.sampled_from("mo")),
                 "rationale": RATIONALES_BY_HASH[text], "logprob": draw(st.sampled_from([None, -0.5, -0.25]))}
            )  # fmt: skip
    return samples, labels


@settings(max_examples=12, deadline=None)
@given(
    st.data(),
    st.sampled_from([(SVAMP, [None, "1", "2"]), (OWN_EQUALITY, [None, "1", "3"]), (SETS, [None, "1", "1, 2", "none"])]),
    st.builds(
        VoteRule,
        dataset=st.just("svamp"),
        teachers=st.sampled_from([("*",), ("m",)]),
        n=st.sampled_from([None, 1, 3]),
        seed=st.integers(0, 2),
        positives=st.sampled_from(["majority", "gold", "majority-and-gold"]),
        check_arithmetic=st.booleans(),
    ),
    st.sampled_from([3, 10]),
    st.integers(1, 4),
)
def test_groups_and_shards_give_the_votes_of_one_pass(
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    of: tuple[Dataset, list[str | None]],
    rule: VoteRule,
    at_once: int,
    of_shards: int,
) -> None:
    dataset, answers = of
    samples, labels = data.draw(stored_samples(answers))
    folder = tmp_path_factory.mktemp("votes")
    samples.append({**samples[0], "sample_id": "of-m", "sample_index": 9, "model": "m"})  # somebody always votes
    # An example whose samples go away between the votes, and one that gets another.
    samples.append({**samples[0], "sample_id": "gone", "example_id": "gone", "model": "m"})
    late = {**samples[0], "sample_id": "late", "sample_index": 10, "dataset": "svamp", "split": "train",
            "source": "recorded", "model": "m", "created_at": now()}  # fmt: skip
    results = []
    ways: list[tuple[str, int, Callable[[Store, Dataset, VoteRule], VoteSummary]]] = [
        ("one", 10**6, vote), ("many", at_once, vote), ("shards", at_once, in_shards(of_shards)),
    ]  # fmt: skip
    for name, groups, voting in ways:
        store = fill(folder / name, samples[:-1], labels | {"gone": "1"}, EXTRA)
        fill(folder / name, samples[-1:], {}, EXTRA)
        [last] = [path for path in store.parts(RATIONALES) if store_rows(store, path) == 1]
        with in_groups(groups):
            first = voting(store, dataset, rule)
            (folder / name / last).unlink()
            store.append(RATIONALES, pa.Table.from_pylist([late], RATIONALES.schema))
            store = Store(folder / name)
            second = voting(store, dataset, rule)
            third = voting(store, dataset, rule)
        results.append((first, second, third, voted(store)))
    assert results[1] == results[0]
    assert results[2] == results[0]
    assert results[2][2].changed == 0
    shutil.rmtree(folder)


def store_rows(store: Store, path: str) -> int:
    """The rows of a part file."""
    return int(pa.parquet.read_metadata(store.files.absolute(path)).num_rows)


def few(root: str | Path) -> Store:
    """A store of 40 examples with 5 samples each."""
    samples: list[Sample] = [
        {"sample_id": f"s{e}-{i}", "example_id": f"e{e}", "sample_index": i, "answer": str((e + i) % 3),
         "rationale_hash": i, "rationale": f"r{i}", "logprob": None}
        for e in range(40)
        for i in range(5)
    ]  # fmt: skip
    return fill(root, samples, {f"e{e}": "1" for e in range(40)}, EXTRA)


def folders(root: Path) -> list[str]:
    """What lies in the store's folder of unfinished files."""
    return [file.name for file in (root / "_tmp").glob("*")]


def test_on_an_object_store(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    here, there = few(tmp_path / "here"), few(bucket)
    rule = VoteRule(dataset="svamp", n=3)
    vote(here, SVAMP, rule)
    with in_groups(30):
        assert vote(there, SVAMP, rule).added == 40
        assert vote(there, SVAMP, rule).unchanged == 40
        assert in_shards(3)(there, SVAMP, rule).unchanged == 40
    assert voted(there) == voted(here)
    assert not [path for path in (tmp_path / "temporary").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_shards_share_out_the_questions_and_one_may_be_empty(tmp_path: Path) -> None:
    store, rule = few(tmp_path), VoteRule(dataset="svamp")
    shards = [vote_on_split(store, SVAMP, rule, "train", shard) for shard in Shard.all(3)]
    assert sum(one["examples"] for one in shards) == sum(one["added"] for one in shards) == 40
    assert all(0 < one["examples"] < 40 for one in shards)
    many = [vote_on_split(store, SVAMP, rule, "train", shard) for shard in Shard.all(200)]
    assert VoteSums({"examples": 40, "unchanged": 40}) <= sum(many, VoteSums())
    assert [one for one in many if not one["examples"]]
    assert folders(tmp_path) == []


def test_a_shard_and_a_whole_vote_at_once_store_each_row_once(tmp_path: Path) -> None:
    """A shard waits for whoever votes on all, and then finds the rows."""
    store, rule = few(tmp_path), VoteRule(dataset="svamp")
    with ThreadPoolExecutor() as pool:
        with store.lock("votes svamp/train"):
            late = pool.submit(vote_on_split, Store(tmp_path), SVAMP, rule, "train", Shard(number=0, of=1))
            while not folders(tmp_path):
                assert not late.done()
            assert store.parts(VOTES) == []
        assert vote(store, SVAMP, rule).examples == 40
        assert late.result()["examples"] == 40
    assert store.query("SELECT count(*) AS n FROM votes")["n"].to_pylist() == [40]


def test_a_vote_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = few(tmp_path)

    def equal(one: str, other: str, _: Any) -> bool:
        raise ArithmeticError(one, other)

    with in_groups(30), pytest.raises(ArithmeticError):
        vote(store, replace(SVAMP, compares_strings=False, equal=equal), VoteRule(dataset="svamp"))
    assert folders(tmp_path) == []
    assert store.parts(VOTES) == []


def test_a_killed_votes_folder_goes_with_a_repair(tmp_path: Path) -> None:
    few(tmp_path)
    assert killed_at(tmp_path, 3) == -signal.SIGKILL
    [left] = folders(tmp_path)
    assert check_store(Store(tmp_path)).unfinished == [f"_tmp/{left}"]
    check_store(Store(tmp_path), repair=True)
    assert folders(tmp_path) == []


# ---- killed ----

STEPS: list[tuple[Any, str]] = [
    (Files, "folder"), (Spooled, "add"), (Spooled, "keep"), (Store, "merge"), (Store, "_append_query"),
    (Files, "publish_file"), (Store, "mark"),
]  # fmt: skip


def _vote(root: str, number: int, steps: Any) -> None:
    """In a process of its own: votes, and dies just before or after a step (0: never)."""

    def counted(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            die()
            result = step(*given, **named)
            die()
            return result

        return run

    def die() -> None:
        steps.value += 1
        if steps.value == number:
            os.kill(os.getpid(), signal.SIGKILL)

    for owner, name in STEPS:
        setattr(owner, name, counted(getattr(owner, name)))
    with in_groups(60):
        vote(Store(root), SVAMP, VoteRule(dataset="svamp"))


def killed_at(root: Path, number: int, steps: Any = None) -> int | None:
    """How a vote ended that is killed at a step."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])
    steps = steps or server.Value("i", 0)
    process = server.Process(target=_vote, args=(str(root), number, steps))
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.slow
def test_killed_at_any_step_the_old_votes_stand_or_the_new_ones(tmp_path: Path) -> None:
    template, calm = few(tmp_path / "template"), tmp_path / "calm"
    vote(template, SVAMP, VoteRule(dataset="svamp"))
    old = {row["example_id"]: row for row in voted(template)}
    more: list[Sample] = [
        {"sample_id": f"t{e}", "example_id": f"e{e}", "sample_index": 5, "answer": "2", "rationale_hash": 5,
         "rationale": "r5", "logprob": None, "dataset": "svamp", "split": "train", "source": "recorded", "model": "m",
         "created_at": now()}
        for e in range(20, 60)
    ]  # fmt: skip
    template.append(RATIONALES, pa.Table.from_pylist(more, RATIONALES.schema))
    shutil.copytree(tmp_path / "template", calm)
    steps = multiprocessing.get_context("forkserver").Value("i", 0)
    assert killed_at(calm, 0, steps) == 0
    new = {row["example_id"]: row for row in voted(Store(calm))}
    assert len(new) == 60
    assert sum(new[key] != old[key] for key in old) == 20
    for number in range(1, steps.value + 1):
        root = tmp_path / f"killed-{number}"
        shutil.copytree(tmp_path / "template", root)
        assert killed_at(root, number) == -signal.SIGKILL
        found = {row["example_id"]: row for row in voted(Store(root))}
        assert all(row in (old.get(key), new[key]) for key, row in found.items())
        assert set(old) <= set(found)
        assert killed_at(root, 0) == 0
        assert voted(Store(root)) == voted(Store(calm)), f"killed at step {number} of {steps.value}"
        assert check_store(Store(root), repair=True).sound
        assert folders(root) == []
        shutil.rmtree(root)
