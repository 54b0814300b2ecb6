"""One round of the student's training: what it is trained on, killed and gone on, alone and in two processes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from models.checkpoints import Position, read_position
from models.errors import TrainingDiverged, TrainingFailed
from models.folders import MODEL, read_steps
from models.judge import Judge, judge_input
from models.prefixes import EXPLAIN, PREDICT, WRONGLY
from models.student_loading import load_student
from storage.errors import NothingToDo
from tasks.training.folder import Training
from tasks.training.negatives import sample_negatives
from tasks.training.outcomes import Prepared, RoundTrained
from tasks.training.own_rationales import own_rationales
from tasks.training.quality import scores_of, update_quality
from tasks.training.spec import INITIAL, TrainingConfig
from tasks.training.student import side_task_draw, train_round, training_examples
from tests.models.tiny_round import assert_equal_bit_for_bit, end_state, kill, start_process
from tests.tasks.training.world import LAB, World, small_world, spec_of, tiny_training

NO_DROPOUT: dict[str, Any] = {"student": {"dropout": 0.0}, "optimisation": {"batch_size": 5, "log_every": 1}}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return small_world(tmp_path)


def ready(world: World, config: TrainingConfig | None = None) -> Prepared:
    """A training that can begin with round 0."""
    prepared = world.prepare(config)
    sample_negatives(prepared.folder, 0)
    update_quality(prepared.folder, 0)
    return prepared


# ---- what it is trained on ----


def test_targets_and_their_scores_are_those_of_the_store(world: World) -> None:
    prepared = ready(world)
    spec = spec_of(prepared)
    student = load_student(Training(prepared.folder).checkpoint(INITIAL) / MODEL, spec.config.student)
    rows = Training(prepared.folder).examples().to_pylist()
    own = own_rationales(world.store, spec, 0, rows)
    scores = scores_of(world.store, spec, 0)
    examples, left_out = training_examples(spec, LAB, student, rows, own, scores)
    assert left_out == 0
    for row, example in zip(rows, examples, strict=True):
        question = LAB.student_input(row["question"], ())
        assert example.predict_ids == student.input_ids([PREDICT + question])[0]
        assert example.explain_ids == student.input_ids([EXPLAIN + question])[0]
        assert example.answer_ids == student.target_ids([row["answer"]])[0]
        made = own[row["example_id"]].negatives if row["example_id"] in own else []
        mine = [(one["sample_id"], one["text"]) for one in made]
        for side, expected in (
            (example.positives, [(item["sample_id"], item["text"]) for item in row["positives"]]),
            (example.negatives, [(item["sample_id"], item["text"]) for item in row["negatives"]] + mine),
        ):
            assert [one.score for one in side] == [scores[key] for key, _ in expected]
            ids = student.target_ids([text for _, text in expected])
            written = {one["sample_id"]: one["token_ids"] for one in made}  # not what its text would be, tokenised
            assert [list(one.ids) for one in side] == [
                written.get(key, plain) for (key, _), plain in zip(expected, ids, strict=True)
            ]
            assert [one.own for one in side] == [key in written for key, _ in expected]


@pytest.mark.parametrize("method", [{"name": "dss"}, {"discriminator": False}, {"name": "single-task"}])
def test_without_a_discriminator_positives_count_1_and_negatives_in_full(world: World, method: dict[str, Any]) -> None:
    prepared = ready(world, tiny_training(method=method))
    spec = spec_of(prepared)
    student = load_student(Training(prepared.folder).checkpoint(INITIAL) / MODEL, spec.config.student)
    rows = Training(prepared.folder).examples().to_pylist()
    examples, _ = training_examples(spec, LAB, student, rows, {}, None)
    assert {one.score for example in examples for one in example.positives} == {1.0}
    negatives = [one for example in examples for one in example.negatives]
    assert {one.score for one in negatives} == ({0.0} if "discriminator" in method else set())
    if method.get("name") == "single-task":
        row, example = rows[0], examples[0]
        text = f"{row['positives'][0]['text']} So the answer is {row['answer']}."
        assert list(example.positives[0].ids) == student.target_ids([text])[0]
        assert all(one.answer_ids is None for one in examples)


def test_an_answer_that_comes_first_is_told_from_its_rationale(world: World) -> None:
    method = {"targets": "answer-first", "answer_share": 0.5, "negatives": False, "discriminator": False}
    prepared = ready(world, tiny_training(method=method))
    student = load_student(Training(prepared.folder).checkpoint(INITIAL) / MODEL, spec_of(prepared).config.student)
    rows = Training(prepared.folder).examples().to_pylist()
    examples, _ = training_examples(spec_of(prepared), LAB, student, rows, {}, None)
    for row, example in zip(rows, examples, strict=True):
        for given, positive in zip(row["positives"], example.positives, strict=True):
            parts = positive.ids[: positive.answer_tokens], positive.ids[positive.answer_tokens :]
            answer, rationale = (student.tokenizer.decode(list(ids), skip_special_tokens=True) for ids in parts)
            assert (answer.replace(" ", ""), rationale.strip()) == (f"{row['answer']}|", given["text"])


def test_a_round_is_trained_once_and_the_next_goes_on_from_it(world: World) -> None:
    prepared = ready(world, tiny_training(rounds={"epochs_per_round": 2}))
    reports: list[dict[str, float]] = []
    first = train_round(prepared.folder, 0, reports.append)
    assert (first.t, first.steps, first.examples, first.left_out) == (0, 6, 12, 0)
    assert first.checkpoint == "step-00000006"
    assert first.means.keys() == {"loss", "answer", "positive", "negative", "repelled"}
    assert reports[-1]["step_of_round"] == 6
    assert train_round(prepared.folder, 0) == first
    assert len(read_steps(Training(prepared.folder).round(0))) == len(reports)
    sample_negatives(prepared.folder, 1)
    update_quality(prepared.folder, 1)
    second = train_round(prepared.folder, 1)
    assert read_position(Training(prepared.folder).checkpoint(1)) == Position(12, 6)
    rates = [line["learning_rate"] for t in (0, 1) for line in read_steps(Training(prepared.folder).round(t))]
    assert rates == sorted(rates, reverse=True), "one schedule over all rounds"
    assert rates[-1] == pytest.approx(1e-3 * (24 - 12) / 24)
    assert second.means["answer"] < first.means["answer"]


def test_a_student_that_can_learn_nothing_says_so(world: World) -> None:
    prepared = world.prepare(tiny_training(method={"name": "single-task"}, student={"max_target_tokens": 3}))
    with pytest.raises(
        NothingToDo, match=r"every target of lab-single-task-\w+ is longer than student\.max_target_tok"
    ):
        train_round(prepared.folder, 0)


# ---- killed ----


def train_slowly(folder: Path) -> None:
    torch.set_num_threads(1)
    train_round(folder, 0, lambda line: time.sleep(600) if line["step_of_round"] == 4 else None)


def test_a_killed_round_ends_with_the_same_weights(world: World) -> None:
    config = tiny_training(rounds={"epochs_per_round": 2}, optimisation={"log_every": 1})
    prepared = ready(world, config)
    process = start_process(train_slowly, prepared.folder)
    while not (Training(prepared.folder).round(0) / "step-00000003").exists():
        assert process.is_alive()
        time.sleep(0.01)
    assert kill(process)
    resumed = train_round(prepared.folder, 0)
    other = small_world(world.root / "undisturbed")
    undisturbed = ready(other, config)
    expected = train_round(undisturbed.folder, 0)
    assert resumed.means == expected.means
    assert_equal_bit_for_bit(Training(prepared.folder).checkpoint(0), Training(undisturbed.folder).checkpoint(0))


# ---- several processes ----


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Prepared, RoundTrained, dict[str, Any]]:
    """A round in one process, without dropout; its last batch is uneven."""
    world = small_world(tmp_path_factory.mktemp("alone"))
    prepared = ready(world, tiny_training(**NO_DROPOUT))
    trained = train_round(prepared.folder, 0)
    return world, prepared, trained, end_state(Training(prepared.folder).checkpoint(0))


@pytest.mark.slow
def test_two_processes_end_like_one(world: World, alone: tuple[World, Prepared, RoundTrained, dict[str, Any]]) -> None:
    _, before, expected, state = alone
    several = {
        **NO_DROPOUT,
        "rounds": {"processes": 2},
        "optimisation": NO_DROPOUT["optimisation"] | {"device": "auto"},
    }
    prepared = ready(world, tiny_training(**several))
    assert prepared.training_id == before.training_id
    assert spec_of(prepared).config.rounds.processes == 2
    trained = train_round(prepared.folder, 0)
    assert (trained.steps, trained.checkpoint, trained.examples) == (3, "step-00000003", 12)
    assert trained.means == pytest.approx(expected.means, rel=1e-4)
    start = load_file(Training(prepared.folder).checkpoint(INITIAL) / MODEL / "model.safetensors")
    found = end_state(Training(prepared.folder).checkpoint(0))
    assert found.keys() == state.keys()
    assert found["plain"] == state["plain"]
    for name, value in start.items():
        way = state[f"model {name}"] - value
        assert (found[f"model {name}"] - state[f"model {name}"]).norm() <= 1e-3 * way.norm(), name
    assert train_round(prepared.folder, 0) == trained, "it is done once"


@pytest.mark.slow
def test_what_stops_one_of_two_processes_is_told(world: World) -> None:
    diverging = {"learning_rate": 1e9, "log_every": 1, "clip_norm": 0.0, "batch_size": 4}
    prepared = ready(world, tiny_training(optimisation=diverging, rounds={"processes": 2, "epochs_per_round": 4}))
    with pytest.raises(TrainingFailed) as caught:
        train_round(prepared.folder, 0)
    text = str(caught.value)
    assert text.startswith("Round 0 failed in 2 processes (exit code ")
    assert "Training stopped at the round's step" in text
    assert "The last good checkpoint is" in text
    assert "\n" not in text
    assert not (Training(prepared.folder).round(0) / "trained.json").exists()
    # In one process it is the error itself.
    alone = tiny_training(optimisation=diverging, rounds={"processes": 1, "epochs_per_round": 4})
    assert world.prepare(alone).training_id == prepared.training_id
    with pytest.raises(TrainingDiverged):
        train_round(prepared.folder, 0)


def launch(folder: Path) -> None:
    train_round(folder, 0)


@pytest.mark.slow
def test_training_processes_end_with_the_one_that_started_them(world: World) -> None:
    long = {"rounds": {"processes": 2, "epochs_per_round": 4000}, "optimisation": {"log_every": 1}}
    prepared = ready(world, tiny_training(**long))
    process = start_process(launch, prepared.folder)
    while not list(Training(prepared.folder).round(0).glob("step-*")):
        assert process.is_alive()
        time.sleep(0.05)
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) >= 4, "the watchdog, the launcher, and two that train"
    assert kill(process)
    _, left = psutil.wait_procs(below, timeout=30)
    assert [one for one in left if one.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.slow
def test_a_round_by_hand(world: World) -> None:
    """As the module's docstring says."""
    prepared = ready(world, tiny_training(method={"name": "dss"}))
    command = [sys.executable, "-m", "tasks.training.student", str(prepared.folder)]

    def run(t: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, str(t)], capture_output=True, text=True, check=False, env=dict(os.environ))

    done = run(0)
    assert done.returncode == 0, done.stderr
    assert train_round(prepared.folder, 0).steps == 3
    refused = run(2)
    assert refused.returncode == 2
    told = json.loads(refused.stderr.splitlines()[-1])["error"]
    assert told.startswith(f"Round 1 of {prepared.folder} is not trained yet")


# ---- bad rationales as data ----


def test_each_round_draws_side_tasks_of_its_own(world: World) -> None:
    prepared = ready(world, tiny_training(method={"wrong_weight": 0.2, "judge_weight": 0.1, "negatives": False}))
    spec = spec_of(prepared)
    student = load_student(Training(prepared.folder).checkpoint(INITIAL) / MODEL, spec.config.student)
    rows = Training(prepared.folder).examples().to_pylist()
    scores = scores_of(world.store, spec, 0)
    seen = []
    for t in (0, 0, 1):
        examples, _ = training_examples(spec, LAB, student, rows, {}, scores, side_task_draw(spec, t))
        seen.append([[(task.input_ids, task.target_ids) for task in one.tasks] for one in examples])
        for row, example in zip(rows, examples, strict=True):
            question = LAB.student_input(row["question"], ())
            judged = {
                (tuple(student.input_ids([judge_input(question, item["text"])])[0]), word)
                for side, word in (("positives", "right"), ("negatives", "wrong"))
                for item in row[side]
            }
            bad = [student.target_ids([item["text"]])[0] for item in row["negatives"]]
            for task in example.tasks:
                if task.weight == 0.2:
                    assert task.input_ids == student.input_ids([WRONGLY + question])[0]
                    assert task.target_ids in bad
                else:
                    [word] = student.tokenizer.batch_decode([task.target_ids], skip_special_tokens=True)
                    assert (tuple(task.input_ids), word) in judged
            assert {task.weight for task in example.tasks} == ({0.2, 0.1} if bad else {0.1})
            assert not example.negatives, "as data alone"
    assert seen[0] == seen[1] != seen[2]


def test_the_student_judges_in_place_of_a_discriminator(world: World) -> None:
    config = tiny_training(method={"judge_weight": 0.1, "quality_by": "judge"})
    prepared = ready(world, config)
    spec, training = spec_of(prepared), Training(prepared.folder)
    assert not training.discriminator(0).exists()
    student = load_student(training.checkpoint(INITIAL) / MODEL, spec.config.student)
    scores = scores_of(world.store, spec, 0)
    row = training.examples().to_pylist()[0]
    good = row["positives"][0]
    [expected] = Judge(student).score([LAB.student_input(row["question"], ())], [good["text"]]).tolist()
    assert scores[good["sample_id"]] == pytest.approx(expected, rel=1e-4)
    train_round(prepared.folder, 0)
    sample_negatives(prepared.folder, 1)
    update_quality(prepared.folder, 1)
    assert scores_of(world.store, spec, 1)[good["sample_id"]] != scores[good["sample_id"]]
