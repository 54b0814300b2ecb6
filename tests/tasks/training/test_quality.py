"""The discriminator's rounds: when it is trained, which scores are made and when, and how well it does on questions
that it has not seen."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tasks.training.quality as quality_module
from models.discriminator import load_discriminator
from storage.schemas import SCORES
from tasks.training.folder import Training
from tasks.training.negatives import sample_negatives
from tasks.training.outcomes import Prepared
from tasks.training.own_rationales import own_rationales
from tasks.training.quality import area_under_curve, scores_of, update_quality, version_of
from tasks.training.student import train_round
from tests.models.encoders import save_encoder
from tests.models.tiny_round import kill, start_process
from tests.tasks.training.world import LAB, World, small_world, spec_of, tiny_training


@pytest.fixture
def world(tmp_path: Path) -> World:
    return small_world(tmp_path)


def play(prepared: Prepared, rounds: int) -> list[Any]:
    outcomes = []
    for t in range(rounds):
        sample_negatives(prepared.folder, t)
        outcomes.append(update_quality(prepared.folder, t))
        train_round(prepared.folder, t)
    return outcomes


def stored(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.store.query("SELECT * FROM scores ORDER BY round, sample_id").to_pylist()
    return found


# ---- when ----


def test_updates_come_every_so_many_rounds_and_scores_only_where_they_are_missing(world: World) -> None:
    prepared = world.prepare()  # update_every 2, lag 2
    outcomes = play(prepared, 4)
    assert [one.version for one in outcomes] == [0, 0, 2, 2]
    assert [one.steps for one in outcomes] == [3, 0, 2, 0], "pretrained, kept, updated, kept"
    # 36 of the teacher's and the student's own; round 1 has the same ones; in round 2 everything by another version,
    # with round 0's student's; in round 3 round 1's student's are new.
    spec = spec_of(prepared)
    examples = Training(prepared.folder).examples().to_pylist()
    first, _, second, third = (  # its own; one that repeats a sample of the teacher's does not count
        sum(len(one.negatives) for one in own_rationales(world.store, spec, t, examples).values()) for t in range(4)
    )
    assert min(first, second, third) > 6
    assert [one.scored for one in outcomes] == [36 + first, 0, 36 + second, third]
    rows = stored(world)
    assert Counter(row["round"] for row in rows) == {0: 36 + first, 2: 36 + second + third}
    assert {row["run_id"] for row in rows} == {spec.training_id}
    assert all(0 < row["score"] < 1 for row in rows)
    assert scores_of(world.store, spec, 2) == {row["sample_id"]: row["score"] for row in rows if row["round"] == 2}
    assert {version: scores_of(world.store, spec, version) for version in (1, 3)} == {1: {}, 3: {}}
    assert [Training(prepared.folder).discriminator(t).is_dir() for t in range(4)] == [True, False, True, False]
    assert not list(prepared.folder.rglob("discriminator-training")), "what it took is removed"


@given(st.integers(0, 60), st.integers(1, 12))
def test_a_version_is_the_round_of_the_latest_update(t: int, update_every: int) -> None:
    config = tiny_training(discriminator={"update_every": update_every})
    version = version_of(_Spec(config), t)  # type: ignore[arg-type]
    assert version % update_every == 0
    assert version <= t < version + update_every


class _Spec:
    def __init__(self, config: Any) -> None:
        self.config = config


def test_a_score_is_what_the_stored_discriminator_says(world: World) -> None:
    prepared = world.prepare()
    outcome = update_quality(prepared.folder, 0)
    discriminator = load_discriminator(Training(prepared.folder).discriminator(outcome.version or 0))
    known = scores_of(world.store, spec_of(prepared), 0)
    for row in Training(prepared.folder).examples().to_pylist()[:3]:
        for item in (*row["positives"], *row["negatives"]):
            value = discriminator.score([LAB.student_input(row["question"], ())], [item["text"]])
            assert known[item["sample_id"]] == pytest.approx(float(value), abs=1e-5)


def test_an_encoder_of_another_kind_is_trained_on_and_scores_what_fits_it(world: World, tmp_path: Path) -> None:
    config = tiny_training(discriminator={"encoder": str(save_encoder("bert", tmp_path / "bert", longest=36))})
    prepared = world.prepare(config)
    outcome = update_quality(prepared.folder, 0)
    discriminator = load_discriminator(Training(prepared.folder).discriminator(0))
    assert discriminator.encoder.config.model_type == "bert"
    assert discriminator.max_tokens == 36
    lengths = {
        item["sample_id"]: len(ids)
        for row in Training(prepared.folder).examples().to_pylist()
        for item in (*row["positives"], *row["negatives"])
        for ids in discriminator.pair_ids([LAB.student_input(row["question"], ())], [item["text"]])
    }
    assert scores_of(world.store, spec_of(prepared), 0).keys() == {key for key, n in lengths.items() if n <= 36}
    assert 0 < outcome.too_long == sum(length > 36 for length in lengths.values()) < len(lengths)
    assert outcome.steps == 3


def test_what_is_done_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = world.prepare()
    first = update_quality(prepared.folder, 0)
    rows = stored(world)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(quality_module, "train", refuse)
    assert update_quality(prepared.folder, 0) == first
    (Training(prepared.folder).round(0) / "quality.json").unlink()
    again = update_quality(prepared.folder, 0)
    assert (again.steps, again.scored) == (first.steps, 0)
    assert (again.positive_score, again.auc_minority) == (first.positive_score, first.auc_minority)
    assert stored(world) == rows


def test_half_of_the_scores_are_completed(world: World) -> None:
    """A process was killed after it had stored some, or a damaged file was set aside."""
    prepared = world.prepare()
    update_quality(prepared.folder, 0)
    rows = stored(world)
    (file,) = (world.root / "store").rglob("scores/**/*.parquet")
    file.unlink()
    world.store.append(SCORES, pa.Table.from_pylist(rows[:20], SCORES.schema))
    (Training(prepared.folder).round(0) / "quality.json").unlink()
    assert update_quality(prepared.folder, 0).scored == 16
    now = stored(world)
    assert [row["sample_id"] for row in now] == [row["sample_id"] for row in rows]
    assert [row["score"] for row in now] == pytest.approx([row["score"] for row in rows], abs=1e-6)


def update_slowly(folder: Path) -> None:
    torch.set_num_threads(1)
    update_quality(folder, 0, lambda line: time.sleep(600) if line["step_of_round"] == 2 else None)


def test_a_killed_training_goes_on_and_ends_with_the_same_discriminator(world: World) -> None:
    config = tiny_training(
        discriminator={"pretrain_steps": 4, "batch_size": 4, "dropout": 0.2}, optimisation={"log_every": 1}
    )
    prepared = world.prepare(config)
    work = Training(prepared.folder).round(0) / "discriminator-training"
    process = start_process(update_slowly, prepared.folder)
    while not (work / "step-00000001").exists():
        assert process.is_alive()
        time.sleep(0.01)
    assert kill(process)
    outcome = update_quality(prepared.folder, 0)
    assert outcome.steps == 4
    other = small_world(world.root / "undisturbed")
    undisturbed = other.prepare(config)
    update_quality(undisturbed.folder, 0)
    first, second = (
        load_discriminator(Training(one.folder).discriminator(0)).state_dict() for one in (prepared, undisturbed)
    )
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert [row["score"] for row in stored(world)] == [row["score"] for row in stored(other)]


@pytest.mark.parametrize("method", [{"discriminator": False}, {"name": "dss"}, {"name": "finetune"}])
def test_who_needs_no_discriminator_has_none(world: World, method: dict[str, Any]) -> None:
    prepared = world.prepare(tiny_training(method=method))
    outcome = update_quality(prepared.folder, 0)
    assert (outcome.version, outcome.scored) == (None, 0)
    assert not Training(prepared.folder).discriminator(0).exists()
    assert stored(world) == []


# ---- what it learns from ----


def training_pairs(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the discriminator is trained on before round 0: (question, positives, negatives) each."""
    seen: list[Any] = []
    examples_of = quality_module._examples

    def noted(*arguments: Any) -> Any:
        seen.extend(found := list(examples_of(*arguments)))
        return found

    monkeypatch.setattr(quality_module, "_examples", noted)
    update_quality(prepared.folder, 0)
    discriminator = load_discriminator(Training(prepared.folder).round(0) / "discriminator")
    read: list[Any] = []
    for example in seen:
        texts = [
            [discriminator.tokenizer.decode(ids, skip_special_tokens=False).split("</s>")[:2] for ids in side]
            for side in (example.positives, example.negatives)
        ]
        (question,) = {question for side in texts for question, _ in side}
        read.append((question, [text for _, text in texts[0]], [text for _, text in texts[1]]))
    return read


def test_it_is_trained_on_nine_tenths_with_as_many_bad_ones_as_good_ones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = world.prepare()
    rows = Training(prepared.folder).examples().to_pylist()
    pairs = training_pairs(prepared, monkeypatch)
    held_out = {rows[0]["question"], rows[10]["question"]}
    assert [question for question, _, _ in pairs] == [
        row["question"] for row in rows if row["question"] not in held_out
    ]
    by_question = {row["question"]: row for row in rows}
    for question, good, bad in pairs:
        assert good == [item["text"] for item in by_question[question]["positives"]]
        minority = [item["text"] for item in by_question[question]["negatives"]]
        assert bad[: len(minority)] == minority
        # Two good ones and a bad one: a spoilt one balances them.
        assert len(bad) == len(good) == 2
        assert bad[1] not in good
        assert len(bad[1].split()) == len(good[0].split())


def test_the_students_own_join_the_bad_ones(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = world.prepare()
    sample_negatives(prepared.folder, 0)
    pairs = training_pairs(prepared, monkeypatch)
    rows = world.store.query("SELECT question, rationale FROM rationales r JOIN examples USING (example_id) "
                             "WHERE source = 'student'").to_pylist()  # fmt: skip
    own = {row["question"]: row["rationale"] for row in rows}
    assert sum(own[question] in bad for question, _, bad in pairs) >= 8, "decoded and encoded again some may differ"


def test_without_anything_to_learn_from_it_stays_untrained(tmp_path: Path) -> None:
    """Fewer than eleven questions may all be held out; then there is nothing to train on, and scores all the same."""
    world = World(tmp_path)
    key = world.ask("Ann has 2 nuts. How many?", "2")
    world.sample(key, ("Two.", "2"), ("Three.", "3"))
    world.ask("Ben has 3 cards. How many?", "3", "validation")
    world.ask("Ben has 4 cards. How many?", "4", "test")
    world.vote()
    outcome = update_quality(world.prepare().folder, 0)
    assert (outcome.steps, outcome.scored) == (0, 2)
    assert outcome.auc_minority in (0.0, 0.5, 1.0)
    assert (outcome.auc_student, outcome.student_score) == (None, None)


def test_pairs_that_are_too_long_are_counted_and_have_no_score(world: World) -> None:
    prepared = world.prepare(tiny_training(discriminator={"max_tokens": 26, "pretrain_steps": 1}))
    outcome = update_quality(prepared.folder, 0)
    discriminator = load_discriminator(Training(prepared.folder).discriminator(outcome.version or 0))
    lengths: dict[str, int] = {}
    for row in Training(prepared.folder).examples().to_pylist():
        for item in (*row["positives"], *row["negatives"]):
            lengths[item["sample_id"]] = len(discriminator.pair_ids([row["question"]], [item["text"]])[0])
    fitting = {key for key, length in lengths.items() if length <= 26}
    assert 0 < len(fitting) < 36, "else this shows nothing"
    assert (outcome.scored, outcome.too_long) == (len(fitting), 36 - len(fitting))
    assert {row["sample_id"] for row in stored(world)} == fitting
    # What has no score is not trained on either, and that is counted.
    trained = train_round(prepared.folder, 0)
    assert trained.left_out == 36 - len(fitting)


# ---- how well it does ----

SCORES_OF_SOME = st.lists(st.floats(0, 1) | st.sampled_from([0.25, 0.5]), max_size=12)


@given(SCORES_OF_SOME, SCORES_OF_SOME)
def test_the_area_is_the_share_of_pairs_in_the_right_order(good: list[float], bad: list[float]) -> None:
    found = area_under_curve(good, bad)
    if not good or not bad:
        assert found is None
        return
    right = sum((one > other) + 0.5 * (one == other) for one in good for other in bad)
    assert found == pytest.approx(right / (len(good) * len(bad)))


def test_the_figures_are_of_the_held_out_questions(world: World) -> None:
    prepared = world.prepare()
    sample_negatives(prepared.folder, 0)
    outcome = update_quality(prepared.folder, 0)
    known = scores_of(world.store, spec_of(prepared), 0)
    own = {
        row["example_id"]: row["sample_id"]
        for row in world.store.query("SELECT * FROM rationales WHERE source = 'student'").to_pylist()
    }
    kinds: dict[str, list[float]] = {"good": [], "minority": [], "student": []}
    for place, row in enumerate(Training(prepared.folder).examples().to_pylist()):
        if place % 10 == 0:
            kinds["good"] += [known[item["sample_id"]] for item in row["positives"]]
            kinds["minority"] += [known[item["sample_id"]] for item in row["negatives"]]
            kinds["student"].append(known[own[row["example_id"]]])
    assert [len(values) for values in kinds.values()] == [4, 2, 2]

    def share(bad: list[float]) -> float:
        pairs = [(one > other) + 0.5 * (one == other) for one in kinds["good"] for other in bad]
        return sum(pairs) / len(pairs)

    assert outcome.auc_minority == pytest.approx(share(kinds["minority"]))
    assert outcome.auc_student == pytest.approx(share(kinds["student"]))
    means = [sum(values) / len(values) for values in kinds.values()]
    assert [outcome.positive_score, outcome.minority_score, outcome.student_score] == pytest.approx(means)
