"""A person's judgements of a random sample: what is asked, what it adds up to, what becomes of it."""

import json
import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import mean, stdev

import pytest

from storage.checking import check_store
from storage.compaction import compact
from storage.datasets.definition import Dataset, Example
from storage.datasets.registry import get_dataset
from storage.errors import NothingToDo
from storage.schemas import PREDICTIONS
from storage.store import Store, now
from storage.votes import VoteRule, vote
from tasks.questions.stored import store_examples
from tasks.tracking.gate import wilson_interval
from tasks.watching.audit import (
    Estimate,
    Item,
    Judgement,
    Judgements,
    Kept,
    Verdict,
    as_answer,
    estimate,
    judgements,
    keep,
    of_student,
    of_vote,
    record,
    right_answers,
    sampled,
    verdict_on,
)
from tests.tasks.training.world import LAB, World

QUESTIONS = 40


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Questions without labels; the teacher says 7 to each, but nothing to the last one."""
    world = World(tmp_path)
    for number in range(QUESTIONS):
        key = world.ask(f"Question {number}?", None)
        if number < QUESTIONS - 1:
            world.sample(key, ("rarely", "7"), ("often", "7"), ("often", "7"), ("no", "8"))
        else:
            world.sample(key, ("hm", None))
    world.vote()
    return world


def sample_of(store: Store, count: int, seed: int = 0) -> list[Item]:
    return sampled(store, "lab", "train", of_vote(store, "lab", "train"), count, seed)


def test_a_larger_sample_holds_the_smaller_and_another_seed_draws_another(world: World) -> None:
    store = world.store
    ten, twenty = sample_of(store, 10), sample_of(store, 20)
    assert twenty[:10] == ten
    assert len({item.example_id for item in twenty}) == 20
    assert {item.example_id for item in sample_of(store, 10, seed=1)} != {item.example_id for item in ten}
    assert len(sample_of(store, 1000)) == QUESTIONS
    assert [item.example_id for item in ten] != sorted(item.example_id for item in ten)


def test_an_item_has_the_majority_answer_and_the_rationale_that_was_sampled_most(world: World) -> None:
    items = [item for item in sample_of(world.store, QUESTIONS) if item.answer is not None]
    assert {(item.answer, item.rationale) for item in items} == {("7", "often")}


def test_judgements_are_stored_at_once_and_the_newest_counts(world: World) -> None:
    store = world.store
    first, second = sample_of(store, 2)
    record(store, LAB, "train", first, Judgement("right"))
    record(store, LAB, "train", second, Judgement("wrong", "9"))
    record(store, LAB, "train", first, Judgement("unsure"))
    assert judgements(Store(world.root / "store"), "lab", "train") == {
        (first.example_id, "7"): Judgement("unsure"),
        (second.example_id, "7"): Judgement("wrong", "9"),
    }
    record(store, LAB, "train", second, Judgement(None))
    assert judgements(store, "lab", "train") == {(first.example_id, "7"): Judgement("unsure")}
    record(store, LAB, "train", first, Judgement("right"), auditor="Ann")
    assert judgements(store, "lab", "train", "Ann") == {(first.example_id, "7"): Judgement("right")}
    assert judgements(store, "lab", "train") == {(first.example_id, "7"): Judgement("unsure")}
    compact(store)
    assert check_store(store).sound
    assert store.query("SELECT count(*) AS n FROM audits")["n"].to_pylist() == [3]
    assert judgements(store, "lab", "train") == {(first.example_id, "7"): Judgement("unsure")}


def test_a_judgement_counts_for_every_later_vote_with_the_same_answer(world: World) -> None:
    store = world.store
    for item in sample_of(store, 5):
        if item.answer is not None:
            record(store, LAB, "train", item, Judgement("right"))
    vote(store, LAB, VoteRule(dataset="lab", n=3), "train")
    items = sample_of(store, 5)
    assert items[0].judged != of_vote(store, "lab", "train", VoteRule(dataset="lab").vote_id).judged
    assert estimate(LAB, items, judgements(store, "lab", "train")).left == 0


def test_the_champion_costs_only_the_answers_that_nobody_has_judged(world: World) -> None:
    store = world.store
    items = [item for item in sample_of(store, 6) if item.answer is not None][:4]
    for item, judgement in zip(
        items, (Judgement("right"), Judgement("wrong"), Judgement("wrong", "9"), Judgement("unsure")), strict=True
    ):
        record(store, LAB, "train", item, judgement)
    rows = [
        {"example_id": item.example_id, "model": "student@1", "split": "train", "dataset": "lab", "answer": "1",
         "given_answer": given, "rationale": None, "correct": False, "created_at": now(), "run_id": "t"}
        for item, given in zip(items, ("8", "8", "9", "7"), strict=True)
    ]  # fmt: skip
    store.upsert(PREDICTIONS, PREDICTIONS.schema.empty_table().from_pylist(rows, PREDICTIONS.schema))
    subject = of_student(store, "lab", "train", "lab version 1", ["student@1", "lab/1"])
    theirs = {item.example_id: item for item in sampled(store, "lab", "train", subject, 50)}
    found = judgements(store, "lab", "train")
    known = [verdict_on(LAB, theirs[item.example_id], found) for item in items]
    assert known == ["wrong", None, "right", "unsure"], "8 is not 7; 8 may be; 9 was typed; 7 could not be told"
    with pytest.raises(NothingToDo, match=r"split that it has answered with --split: train \(4\)"):
        of_student(store, "lab", "test", "lab version 1", ["student@1"])


def test_of_answers_in_free_text_several_may_be_right(world: World) -> None:
    item = next(item for item in sample_of(world.store, 2) if item.answer is not None)
    found = {(item.example_id, "another"): Judgement("right")}
    free = Dataset(**{**vars(LAB), "answer_kind": "custom"})
    assert (verdict_on(LAB, item, found), verdict_on(free, item, found)) == ("wrong", None)
    assert verdict_on(free, item, {(item.example_id, "another"): Judgement("wrong", "7")}) == "right"


def test_the_estimate_has_wilson_s_interval_and_bounds_what_could_not_be_told() -> None:
    assert str(Estimate(right=41, wrong=9, unsure=0, none=0, left=0)) == "41 of 50 right: 82.0 % (69.2 to 90.2)."
    some = Estimate(right=41, wrong=7, unsure=2, none=1, left=3)
    assert some.interval == (41 / 48, *wilson_interval(41, 48))
    assert some.bounds == (wilson_interval(41, 50)[0], wilson_interval(43, 50)[1])
    assert str(some) == (
        "41 of 48 right: 85.4 % (72.8 to 92.8); 1 of the wrong ones is no answer. 2 could not be told: 69.2 to 93.0 %, "
        "whether they are all wrong or right."
    )
    assert str(Estimate(0, 0, 0, 0, 5)) == "Nothing of this sample has been judged yet, so there is no estimate."
    assert str(Estimate(0, 0, 2, 0, 5)).startswith("None could be told. 2 could not be told: 0.0 to 100.0 %")


def test_no_answer_is_wrong_and_nobody_is_asked(world: World) -> None:
    store = world.store
    items = sample_of(store, QUESTIONS)
    for item in items:
        if item.answer is not None:
            record(store, LAB, "train", item, Judgement("right"))
    found = estimate(LAB, items, judgements(store, "lab", "train"))
    assert found == Estimate(right=QUESTIONS - 1, wrong=1, unsure=0, none=1, left=0)


def item(key: str, answer: str | None) -> Item:
    return Item(key, key, (), None, {}, answer, None, "v")


def said(verdict: Verdict, right: str | None = None, judged: str = "v") -> Judgement:
    return Judgement(verdict, right, judged)


def test_it_counts_as_far_as_nothing_is_left_to_judge() -> None:
    items = [item("a", None), item("b", "7"), item("c", "7"), item("d", None), item("e", "7"), item("f", None)]
    known = {("e", "7"): said("right")}
    assert estimate(LAB, items, known) == Estimate(0, 0, 0, 0, left=2, later=4), "b is not judged"
    known[("b", "7")] = said("right")
    assert estimate(LAB, items, known) == Estimate(right=1, wrong=1, unsure=0, none=1, left=1, later=3)
    known[("c", "7")] = said("unsure")
    assert estimate(LAB, items, known) == Estimate(right=2, wrong=3, unsure=1, none=3, left=0)


def test_answers_known_by_another_audit_are_no_estimate_before_one_of_these_is_judged() -> None:
    items = [item("a", "7"), item("b", "7"), item("c", None), item("d", "8"), item("e", "7")]
    known = {("a", "7"): said("right", judged="another"), ("b", "9"): said("right", judged="another")}
    assert estimate(LAB, items, known) == Estimate(0, 0, 0, 0, left=2, later=3)
    known[("d", "8")] = said("right")
    assert estimate(LAB, items, known) == Estimate(right=2, wrong=2, unsure=0, none=1, left=1)
    assert estimate(LAB, items[:3], known) == Estimate(1, 2, 0, 1, left=0), "all are known: that is the sample's figure"


DRAWS = 1000


@pytest.mark.parametrize("stop", [1, 3, 8, 40])
@pytest.mark.parametrize("size", [12, 40])
def test_whenever_a_person_stops_the_estimate_is_right_in_the_mean(stop: int, size: int) -> None:
    """Of 40 answers, a quarter is none and a quarter known beforehand; those are right more often than others."""
    population = [
        *(item(f"none {n}", None) for n in range(10)),
        *(item(f"known {n}", "7" if n < 8 else "8") for n in range(10)),
        *(item(f"right {n}", "7") for n in range(11)),
        *(item(f"wrong {n}", "8") for n in range(9)),
    ]  # fmt: skip
    before = {(f"known {n}", "5"): said("wrong", "7", "another") for n in range(10)}
    truth = (8 + 11) / 40
    draw = random.Random(f"{stop} {size}")
    shares = []
    for _ in range(DRAWS):
        items = draw.sample(population, size)
        found = estimate(LAB, items, judged_up_to(stop, items, before))
        assert found.interval is not None
        shares.append(found.interval[0])
    error = stdev(shares) / DRAWS**0.5
    assert abs(mean(shares) - truth) < 4 * error + 1e-9, f"{mean(shares):.3f}, not {truth:.3f}"
    assert error < 0.02


def judged_up_to(stop: int, items: Sequence[Item], before: Judgements) -> Judgements:
    """What is known once a person has judged so many answers as they came."""
    found = dict(before)
    waiting = (one for one in items if verdict_on(LAB, one, before) is None)
    for one in islice(waiting, stop):
        found[one.example_id, str(one.answer)] = said("right" if one.answer == "7" else "wrong")
    return found


def test_questions_without_an_answer_take_their_random_places(world: World) -> None:
    """None of them first or last, whatever the seed."""
    places = [[one.answer for one in sample_of(world.store, QUESTIONS, seed)].index(None) for seed in range(30)]
    assert abs(mean(places) - (QUESTIONS - 1) / 2) < 4 * stdev(places) / len(places) ** 0.5
    assert min(places) < QUESTIONS / 4
    assert max(places) > 3 * QUESTIONS / 4


def test_right_answers_become_labels_only_where_there_is_none(world: World) -> None:
    store = world.store
    items = [item for item in sample_of(store, 6) if item.answer is not None][:4]
    store_examples(store, LAB, "train", [Example(items[3].question, (), "5")])
    for item, judgement in zip(
        items, (Judgement("right"), Judgement("wrong"), Judgement("wrong", "9"), Judgement("right")), strict=True
    ):
        record(store, LAB, "train", item, judgement)
    found = judgements(store, "lab", "train")
    sample = [item for item in sample_of(store, 6) if item.example_id in right_answers(found) or item in items]
    kept = keep(store, LAB, "train", sample, found)
    assert kept == Kept(added=2, had=0, differing=1, unknown=1)
    labels = dict(
        store.query("SELECT example_id, label FROM examples WHERE label IS NOT NULL").select([0, 1]).to_pandas().values
    )
    assert labels == {items[0].example_id: "7", items[2].example_id: "9", items[3].example_id: "5"}
    again = sample_of(store, 6)
    assert keep(store, LAB, "train", again, found) == Kept(added=0, had=2, differing=1, unknown=1)
    assert json.loads(store.query("SELECT min(extra) AS e FROM examples")["e"][0].as_py()) == {}


def test_a_choice_is_typed_as_its_letter_or_its_text() -> None:
    cqa = get_dataset("cqa")
    item = Item("e", "Where?", ("river", "b", "bank"), None, {}, "river", None, "v")
    assert [as_answer(cqa, item, typed) for typed in ("a", "C", "b", "bank", "lake", " ")] == [
        "river", "bank", "b", "bank", None, None,
    ]  # fmt: skip
