"""Questions with their samples and votes, streamed: each sample has one standing, with the reason."""

from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.datasets.registry import get_dataset
from storage.schemas import EXAMPLES, RATIONALES
from storage.store import Store, now
from storage.vote_sql import NO_RATIONALE, Positives
from storage.voted import Wanted, newest_vote, voted_figures, voted_questions
from storage.votes import VoteRule, vote
from tests.storage.test_votes import RATIONALES_BY_HASH, examples, fill

SVAMP = get_dataset("svamp")


def sample(place: int, answer: str | None, text: int, example: str = "q", **more: Any) -> dict[str, Any]:
    return {
        "sample_id": f"{example}{place}", "example_id": example, "sample_index": place, "answer": answer,
        "parse_error": None if answer else "no answer found", "rationale": RATIONALES_BY_HASH[text],
        "text": RATIONALES_BY_HASH[text], "rationale_hash": text, **more,
    }  # fmt: skip


def standings(store: Store, vote_id: str | None) -> dict[str, str]:
    rows = voted_questions(store, SVAMP, Wanted(vote_id=vote_id, unvoted=True, students=True))
    return {one["sample_id"]: one["standing"].words for row in rows for one in row["samples"]}


SAMPLES = [
    sample(0, "2", 1),
    sample(1, "2", 1),
    sample(2, "3", 3),
    sample(3, "2", 2),
    sample(4, None, 3),
    sample(5, "2", NO_RATIONALE),
    sample(6, "2", 1, model="other"),
    sample(7, "2", 1, source="student"),
]


def test_every_standing_has_its_reason(tmp_path: Any) -> None:
    store = fill(tmp_path, SAMPLES, {"q": "2"})
    assert set(standings(store, None).values()) == {"not voted"}
    rule = VoteRule(dataset="svamp", teachers=("m",), check_arithmetic=True)
    vote(store, SVAMP, rule)
    assert standings(store, rule.vote_id) == {
        "q0": "positive x2",
        "q1": "same text as a positive",
        "q2": "negative",
        "q3": "out: wrong arithmetic",
        "q4": "out: no answer found",
        "q5": "out: no rationale, only an answer",
        "q6": "not selected",
        "q7": "not selected",
    }


@pytest.mark.parametrize(
    ("positives", "label", "told"),
    [
        ("gold", None, {"q0": "out: the question has no label", "q2": "out: the question has no label"}),
        ("gold", "3", {"q0": "negative x3", "q2": "positive"}),
        ("majority-and-gold", "3", {"q0": "negative x3", "q2": "out: right, but not the majority answer"}),
    ],
)
def test_standings_where_the_label_decides(
    tmp_path: Any, positives: Positives, label: str | None, told: dict[str, str]
) -> None:
    store = fill(tmp_path, SAMPLES, {"q": label})
    rule = VoteRule(dataset="svamp", positives=positives)
    vote(store, SVAMP, rule)
    found = standings(store, rule.vote_id)
    assert {key: found[key] for key in told} == told


def test_samples_that_arrive_after_the_vote_are_told_apart(tmp_path: Any) -> None:
    store = fill(tmp_path, SAMPLES, {"q": "2"})
    rule = VoteRule(dataset="svamp")
    vote(store, SVAMP, rule)
    late = {**sample(8, "5", 2), "dataset": "svamp", "split": "train", "source": "recorded", "model": "m"}
    store.append(
        RATIONALES, pa.Table.from_pylist([{**late, "rationale_hash": 9, "created_at": now()}], RATIONALES.schema)
    )
    [row] = voted_questions(store, SVAMP, Wanted(vote_id=rule.vote_id))
    assert row["outdated"]
    assert standings(store, rule.vote_id)["q8"] == "newer than the vote"
    vote(store, SVAMP, rule)
    [row] = voted_questions(store, SVAMP, Wanted(vote_id=rule.vote_id))
    assert not row["outdated"]


def test_answers_that_were_read_again_after_the_vote_are_noticed(tmp_path: Any) -> None:
    store = fill(tmp_path, SAMPLES, {"q": "2"})
    rule = VoteRule(dataset="svamp")
    vote(store, SVAMP, rule)
    [again] = store.query("SELECT * FROM rationales WHERE sample_id = 'q2'").to_pylist()
    store.upsert(RATIONALES, pa.Table.from_pylist([{**again, "answer": "2", "created_at": now()}], RATIONALES.schema))
    [row] = voted_questions(store, SVAMP, Wanted(vote_id=rule.vote_id))
    assert row["outdated"]


@settings(max_examples=40, deadline=None)
@given(
    examples,
    st.sampled_from(["majority", "gold", "majority-and-gold"]),
    st.sampled_from([None, 1, 3]),
    st.booleans(),
)
def test_a_fresh_vote_explains_every_sample(
    given_examples: list[tuple[list[tuple[str | None, int, float | None]], str | None]],
    positives: Positives,
    n: int | None,
    checked: bool,
) -> None:
    samples = [
        sample(place, answer, text, f"q{number}-", logprob=logprob)
        for number, (found, _) in enumerate(given_examples)
        for place, (answer, text, logprob) in enumerate(found)
    ]
    labels = {f"q{number}-": label for number, (_, label) in enumerate(given_examples)}
    rule = VoteRule(dataset="svamp", n=n, positives=positives, check_arithmetic=checked)
    with TemporaryDirectory() as root:
        store = fill(root, samples, labels)
        vote(store, SVAMP, rule)
        rows = list(voted_questions(store, SVAMP, Wanted(vote_id=rule.vote_id)))
    assert [row["example_id"] for row in rows] == sorted(labels)
    assert [[one["sample_id"] for one in row["samples"]] for row in rows] == [
        [one["sample_id"] for one in samples if one["example_id"] == example] for example in sorted(labels)
    ]
    for row in rows:
        told = [one["standing"] for one in row["samples"]]
        assert not row["outdated"]
        assert "newer than the vote" not in {one.words for one in told}
        for side in ("positive", "negative"):
            counted = [one.count for one in told if one.side == side]
            assert sorted(counted) == sorted(target["count"] for target in row[f"{side}s"])
        assert sum(one.words != "not selected" for one in told) == row["n_sampled"]


def test_a_selection_of_questions_on_a_disk_and_in_a_bucket(store: Store) -> None:
    """In order, the first so many, also from a store that is read over the network and in several batches."""
    count = 2500
    rows = [
        {"example_id": f"q{number:05}", "dataset": "svamp", "split": "train", "question": f"Question {number}?",
         "choices": [], "label": "1", "extra": "{}", "created_at": now()}
        for number in range(count)
    ]  # fmt: skip
    samples = [
        {"dataset": "svamp", "split": "train", "source": "recorded", "model": "m", "created_at": now(),
         **sample(place, "1" if place or number % 2 else None, 3, f"q{number:05}")}
        for number in range(1, count) for place in range(2)
    ]  # fmt: skip
    store.append(EXAMPLES, pa.Table.from_pylist(rows, EXAMPLES.schema))
    store.append(RATIONALES, pa.Table.from_pylist(samples, RATIONALES.schema))
    rule = VoteRule(dataset="svamp")
    vote(store, SVAMP, rule)
    assert newest_vote(store, "svamp") == rule.vote_id
    every = Wanted(vote_id=rule.vote_id)
    found = list(voted_questions(store, SVAMP, every))
    assert voted_figures(store, "svamp", every).questions == len(found) == count - 1  # the first has no samples
    assert [row["example_id"] for row in found] == [row["example_id"] for row in rows[1:]]
    assert {len(row["samples"]) for row in found} == {2}
    assert all(one["sample_id"].startswith(row["example_id"]) for row in found for one in row["samples"])
    few = Wanted(vote_id=rule.vote_id, only="unparsed", limit=3)
    assert [row["example_id"] for row in voted_questions(store, SVAMP, few)] == ["q00002", "q00004", "q00006"]
    assert voted_figures(store, "svamp", few).questions == count // 2 - 1
    one = Wanted(vote_id=rule.vote_id, example="q00007", split="train")
    assert [row["question"] for row in voted_questions(store, SVAMP, one)] == ["Question 7?"]
    assert not list(voted_questions(store, SVAMP, Wanted(vote_id=rule.vote_id, split="test")))
