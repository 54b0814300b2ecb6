"""Votes against a slow, obvious reference: plain loops over one example at a time."""

import math
from collections import Counter
from dataclasses import replace
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.datasets.registry import get_dataset
from storage.errors import NothingToDo, UnknownName
from storage.schemas import EXAMPLES, RATIONALES
from storage.store import Store, now
from storage.vote_sql import NO_RATIONALE, Positives
from storage.votes import VoteRule, vote

SVAMP = get_dataset("svamp")
Sample = dict[str, Any]


def fill(root: str | Path, samples: list[Sample], labels: dict[str, str | None], extra: str = "{}") -> Store:
    store = Store(root)
    examples: list[Sample] = [
        {"example_id": key, "dataset": "svamp", "split": "train", "question": key, "choices": [], "label": label,
         "extra": extra, "created_at": now()}
        for key, label in labels.items()
    ]  # fmt: skip
    rows = [
        {"dataset": "svamp", "split": "train", "source": "recorded", "model": "m", "created_at": now(), **sample}
        for sample in samples
    ]
    store.append(EXAMPLES, pa.Table.from_pylist(examples, EXAMPLES.schema))
    store.append(RATIONALES, pa.Table.from_pylist(rows, RATIONALES.schema))
    return store


RATIONALES_BY_HASH = {1: "1 + 1 = 2.", 2: "1 + 1 = 3.", 3: "Two, I think.", NO_RATIONALE: ""}


def reference(samples: list[Sample], label: str | None, positives: Positives, checked: bool) -> dict[str, Any]:
    """docs/distillation.md, read aloud."""
    answered = [sample for sample in samples if sample["answer"] is not None]
    parsed = [sample for sample in answered if not (checked and sample["rationale"] == "1 + 1 = 3.")]
    counts = Counter(sample["answer"] for sample in parsed)

    def rank(answer: str) -> tuple[int, float, int, str]:
        mine = [sample for sample in parsed if sample["answer"] == answer]
        known = [sample["logprob"] for sample in mine if sample["logprob"] is not None]
        mean = math.fsum(known) / len(known) if known else -math.inf
        return counts[answer], mean, -min(sample["sample_index"] for sample in mine), answer

    winner = max(counts, key=rank) if counts else None
    votes = counts[winner] if winner is not None else 0

    def side(sample: Sample) -> str | None:
        if sample["answer"] is None:
            return None
        if positives == "majority":
            if sample["answer"] != winner:
                return "negatives" if winner is not None else None
            return "positives" if sample in parsed else None
        if label is None:
            return None
        if sample["answer"] != label:
            return "negatives"
        return "positives" if sample in parsed and (positives == "gold" or sample["answer"] == winner) else None

    targets: dict[str, dict[int, list[Sample]]] = {"positives": {}, "negatives": {}}
    for sample in sorted(samples, key=lambda sample: sample["sample_index"]):
        name = side(sample)
        if name and sample["rationale_hash"] != NO_RATIONALE:
            targets[name].setdefault(sample["rationale_hash"], []).append(sample)
    for text in targets["positives"]:
        targets["negatives"].pop(text, None)
    return {
        "winner": winner,
        "n_sampled": len(samples),
        "n_parsed": len(parsed),
        "n_miscalculated": len(answered) - len(parsed),
        "n_votes": votes,
        "share": votes / len(parsed) if parsed else None,
        "entropy": -sum(c / len(parsed) * math.log(c / len(parsed)) for c in counts.values()) if parsed else None,
        "tie": sum(count == votes for count in counts.values()) > 1,
        "correct": None if label is None else winner == label,
        "n_correct": None if label is None else sum(sample["answer"] == label for sample in samples),
        **{
            name: {(min(one["sample_id"] for one in group), len(group)) for group in found.values()}
            for name, found in targets.items()
        },
    }


# Log-probabilities are multiples of 1/8, so that means are exact and equal means are equal.
sample_lists = st.lists(
    st.tuples(
        st.sampled_from([None, "1", "2", "3"]),
        st.sampled_from([1, 2, 3, NO_RATIONALE]),
        st.one_of(st.none(), st.integers(-8, 0).map(lambda n: n / 8)),
    ),
    min_size=1,
    max_size=9,
)
examples = st.lists(st.tuples(sample_lists, st.sampled_from([None, "1", "2"])), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(examples, st.sampled_from(["majority", "gold", "majority-and-gold"]), st.booleans())
def test_votes_equal_the_reference(
    drawn: list[tuple[list[Any], str | None]], positives: Positives, checked: bool
) -> None:
    samples: list[Sample] = []
    labels: dict[str, str | None] = {}
    for number, (answers, label) in enumerate(drawn):
        labels[f"e{number}"] = label
        for index, (answer, text, logprob) in enumerate(answers):
            samples.append(
                {"sample_id": f"s{number}-{index}", "example_id": f"e{number}", "sample_index": index,
                 "answer": answer, "rationale_hash": text, "rationale": RATIONALES_BY_HASH[text],
                 "logprob": logprob}
            )  # fmt: skip
    with TemporaryDirectory() as root:
        store = fill(root, samples, labels)
        summary = vote(store, SVAMP, VoteRule(dataset="svamp", positives=positives, check_arithmetic=checked))
        rows = store.query("SELECT * FROM votes ORDER BY example_id").to_pylist()
    assert len(rows) == len(labels)
    for row in rows:
        mine = [sample for sample in samples if sample["example_id"] == row["example_id"]]
        expected = reference(mine, labels[row["example_id"]], positives, checked)
        for name, value in expected.items():
            got = row[name]
            if name in ("positives", "negatives"):
                assert {(target["sample_id"], target["count"]) for target in got} == value, name
                assert len(got) == len(value)
            elif isinstance(value, float):
                assert got == pytest.approx(value), name
            else:
                assert got == value, name
    labelled = [row for row in rows if row["correct"] is not None]
    assert summary.examples == len(rows)
    assert summary.samples == len(samples)
    assert summary.unparsed == sum(sample["answer"] is None for sample in samples)
    assert summary.miscalculated == sum(row["n_miscalculated"] for row in rows)
    assert summary.ties == sum(row["tie"] for row in rows)
    assert summary.mean_positives == pytest.approx(sum(row["n_votes"] for row in rows) / len(rows))
    if labelled:
        assert summary.majority_accuracy == pytest.approx(sum(row["correct"] for row in labelled) / len(labelled))
        right = sum(row["n_correct"] for row in labelled)
        assert summary.single_accuracy == pytest.approx(right / sum(row["n_sampled"] for row in labelled))
    else:
        assert summary.majority_accuracy is None
        assert summary.single_accuracy is None


def made_up(examples: int, per_example: int, models: tuple[str, ...] = ("m",)) -> list[Sample]:
    return [
        {"sample_id": f"s{e}-{i}", "example_id": f"e{e}", "sample_index": i, "answer": str(i % 3),
         "rationale_hash": i, "logprob": None, "model": models[i % len(models)]}
        for e in range(examples)
        for i in range(per_example)
    ]  # fmt: skip


def test_many_passes_give_what_one_pass_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels: dict[str, str | None] = {f"e{e}": "0" for e in range(200)}
    columns = "example_id, winner, n_sampled, n_votes, tie, positives, negatives"
    one = fill(tmp_path / "one", made_up(200, 5), labels)
    vote(one, SVAMP, VoteRule(dataset="svamp"))
    monkeypatch.setattr("storage.votes.SAMPLES_AT_ONCE", 90)
    many = fill(tmp_path / "many", made_up(200, 5), labels)
    vote(many, SVAMP, VoteRule(dataset="svamp"))
    sql = f"SELECT {columns} FROM votes ORDER BY example_id"
    assert many.query(sql).to_pylist() == one.query(sql).to_pylist()


def test_n_chooses_by_seed_and_repeats_itself(tmp_path: Path) -> None:
    store = fill(tmp_path, made_up(50, 10), dict.fromkeys((f"e{e}" for e in range(50)), "0"))
    rule = VoteRule(dataset="svamp", n=3, seed=1)
    summary = vote(store, SVAMP, rule)
    assert (summary.examples, summary.samples, summary.added) == (50, 150, 50)
    again = vote(store, SVAMP, rule)
    assert (again.added, again.changed, again.unchanged) == (0, 0, 50)
    assert replace(again, added=50, unchanged=0) == summary
    other = vote(store, SVAMP, rule.model_copy(update={"seed": 2}))
    assert other.vote_id != summary.vote_id
    chosen = store.query(
        "SELECT vote_id, example_id, positives, negatives FROM votes ORDER BY vote_id, example_id"
    ).to_pylist()
    first = [row for row in chosen if row["vote_id"] == rule.vote_id]
    second = [row for row in chosen if row["vote_id"] != rule.vote_id]
    assert [row["positives"] for row in first] != [row["positives"] for row in second]


def test_a_new_sample_revises_only_its_example(tmp_path: Path) -> None:
    store = fill(tmp_path, made_up(20, 3), dict.fromkeys((f"e{e}" for e in range(20)), "0"))
    vote(store, SVAMP, VoteRule(dataset="svamp"))
    late = {**made_up(1, 1)[0], "sample_id": "late", "sample_index": 9, "answer": "0", "dataset": "svamp",
            "split": "train", "source": "teacher", "created_at": now()}  # fmt: skip
    store.append(RATIONALES, pa.Table.from_pylist([late], RATIONALES.schema))
    summary = vote(store, SVAMP, VoteRule(dataset="svamp"))
    assert (summary.added, summary.changed, summary.unchanged) == (0, 1, 19)
    assert store.query("SELECT n_votes FROM votes WHERE example_id = 'e0'")["n_votes"].to_pylist() == [2]


@pytest.mark.parametrize("name", ["big[1m]", "a*b", "[x]", "what?"])
def test_a_teacher_votes_whatever_its_name_and_alone_where_it_is_escaped(tmp_path: Path, name: str) -> None:
    samples = made_up(4, 6, (name, "big1", "aab"))
    store = fill(tmp_path, samples, {f"e{e}": None for e in range(4)})
    for glob in (escape(name), name):
        assert vote(store, SVAMP, VoteRule(dataset="svamp", teachers=(glob,))).samples >= 8
    assert vote(store, SVAMP, VoteRule(dataset="svamp", teachers=(escape(name),))).samples == 8


def test_samples_that_are_gone_no_longer_count(tmp_path: Path) -> None:
    """As after `qcrd store check --repair` set a damaged file aside."""
    store = fill(tmp_path, made_up(4, 3), dict.fromkeys((f"e{e}" for e in range(4)), "0"))
    more = [
        {**row, "sample_id": "x" + row["sample_id"], "example_id": "x" + row["example_id"]} for row in made_up(2, 3)
    ]
    fill(tmp_path, more, dict.fromkeys(("xe0", "xe1"), "0"))
    assert vote(store, SVAMP, VoteRule(dataset="svamp")).examples == 6
    first, _ = store.parts(RATIONALES)
    (tmp_path / first).unlink()
    left = len(store.query("SELECT DISTINCT example_id FROM rationales"))
    summary = vote(store, SVAMP, VoteRule(dataset="svamp"))
    assert (summary.examples, summary.samples) == (left, 3 * left)
    assert store.query("SELECT count(*) AS n FROM votes WHERE n_sampled > 0")["n"].to_pylist() == [left]
    assert vote(store, SVAMP, VoteRule(dataset="svamp")).changed == 0


def test_teachers_are_chosen_by_glob(tmp_path: Path) -> None:
    samples = made_up(4, 6, ("gpt-3.5-turbo", "gpt-4", "palm"))
    store = fill(tmp_path, samples, {f"e{e}": None for e in range(4)})
    assert vote(store, SVAMP, VoteRule(dataset="svamp", teachers=("gpt-*",))).samples == 16
    assert vote(store, SVAMP, VoteRule(dataset="svamp", teachers=("gpt-4", "palm"))).samples == 16
    with pytest.raises(NothingToDo) as caught:
        vote(store, SVAMP, VoteRule(dataset="svamp", teachers=("gtp-4",)))
    assert str(caught.value) == (
        "Nothing to vote on: no teacher of 'svamp' matches 'gtp-4'. Stored: gpt-3.5-turbo, gpt-4, palm."
    )


def test_student_samples_never_vote(tmp_path: Path) -> None:
    store = fill(tmp_path, [{**sample, "source": "student"} for sample in made_up(2, 2)], {"e0": None, "e1": None})
    with pytest.raises(NothingToDo, match="no teacher of 'svamp'"):
        vote(store, SVAMP, VoteRule(dataset="svamp"))


def test_nothing_stored_and_unknown_splits_are_named(tmp_path: Path) -> None:
    with pytest.raises(NothingToDo, match="no rationales of 'svamp' are stored"):
        vote(Store(tmp_path), SVAMP, VoteRule(dataset="svamp"))
    store = fill(tmp_path, made_up(1, 1), {"e0": None})
    with pytest.raises(UnknownName, match=r"Unknown split 'trian'. Did you mean 'train'"):
        vote(store, SVAMP, VoteRule(dataset="svamp"), "trian")


def test_a_datasets_own_equality_decides_what_is_right(tmp_path: Path) -> None:
    """Where equal strings are not the whole of equality, the dataset is asked; here: numbers within one."""
    close = replace(SVAMP, compares_strings=False, equal=lambda a, b, extra: abs(int(a) - int(b)) <= extra["within"])
    store = fill(tmp_path, made_up(3, 5), {"e0": "1", "e1": "7", "e2": None}, extra='{"within": 1}')
    summary = vote(store, close, VoteRule(dataset="svamp", positives="gold"))
    rows = store.query("SELECT correct, n_correct, positives FROM votes ORDER BY example_id").to_pylist()
    assert [(row["correct"], row["n_correct"], len(row["positives"])) for row in rows] == [
        (True, 5, 5),
        (False, 0, 0),
        (None, None, 0),
    ]
    assert summary.majority_accuracy == 0.5


def test_a_vote_id_follows_from_the_rule() -> None:
    rule = VoteRule(dataset="svamp", teachers=("b", "a"))
    assert rule.vote_id == VoteRule(dataset="svamp", teachers=("a", "b"), seed=9).vote_id  # no n: the seed is idle
    assert rule.vote_id != VoteRule(dataset="svamp", teachers=("a", "b"), n=5).vote_id
    assert rule.vote_id == "Jd9UpXeO8gDq", "as in stores that are older than check_arithmetic"
    assert rule.vote_id != rule.model_copy(update={"check_arithmetic": True}).vote_id


def test_the_same_rule_spelt_otherwise_changes_nothing_stored(tmp_path: Path) -> None:
    store = fill(tmp_path, made_up(3, 3), dict.fromkeys(("e0", "e1", "e2"), "0"))
    assert vote(store, SVAMP, VoteRule(dataset="svamp", teachers=("m", "x"))).added == 3
    again = vote(store, SVAMP, VoteRule(dataset="svamp", teachers=("x", "m"), seed=9))
    assert (again.added, again.changed, again.unchanged) == (0, 0, 3)
