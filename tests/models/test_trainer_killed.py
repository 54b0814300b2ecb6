"""kill -9 in the middle of a round: the same call goes on and ends with the same weights, bit for bit."""

import shutil
from functools import cache
from pathlib import Path
from random import Random
from time import sleep
from typing import Literal

import pytest
import torch

from models.checkpoints import latest, read_position, step_folder
from models.configs import OptimisationConfig
from models.folders import MODEL, read_steps
from models.methods import MethodConfig
from models.trainer import Trained
from tests.lasting import lasting_folder
from tests.models.tiny_round import (
    TinyRound,
    assert_equal_bit_for_bit,
    kill,
    start_process,
    tiny_config,
)

STEPS = 14  # 25 examples, 4 a batch, 2 epochs
Optimizer = Literal["adamw", "adafactor", "muon"]


def tiny_round(folder: Path, start: Path, optimizer: Optimizer, refresh_every: int) -> TinyRound:
    """With dropout, warm-up and weight decay, and a checkpoint after every step."""
    return TinyRound(
        folder=folder,
        start=start,
        student=tiny_config(dropout=0.2),
        method=MethodConfig(delta=9.0, refresh_every=refresh_every),
        optimisation=OptimisationConfig(
            batch_size=4, micro_batch_size=3, optimizer=optimizer, device="cpu", learning_rate=1e-2, warmup_steps=3,
            weight_decay=0.01, log_every=1, checkpoint_every_s=1e-9,
        ),
        examples=25,
    )  # fmt: skip


@cache
def uninterrupted(optimizer: Optimizer, refresh_every: int) -> tuple[TinyRound, Trained]:
    """The round that nobody disturbs."""
    folder = lasting_folder()
    whole = tiny_round(folder / "round", folder / "start", optimizer, refresh_every)
    return whole, whole.run()


def interrupted(folder: Path, optimizer: Optimizer, refresh_every: int) -> TinyRound:
    """The same, from the same student."""
    whole, _ = uninterrupted(optimizer, refresh_every)
    return whole.model_copy(update={"folder": folder})


def assert_same_end(resumed: Trained, optimizer: Optimizer, refresh_every: int) -> None:
    whole, expected = uninterrupted(optimizer, refresh_every)
    assert resumed.checkpoint.name == expected.checkpoint.name == f"step-{STEPS:08d}"
    assert_equal_bit_for_bit(resumed.checkpoint, expected.checkpoint)
    assert resumed.means == expected.means
    timed = ("seconds",)
    lines = [
        [{name: value for name, value in line.items() if name not in timed} for line in read_steps(folder)]
        for folder in (resumed.checkpoint.parent, whole.folder)
    ]
    assert lines[0] == lines[1]


@pytest.mark.parametrize(("optimizer", "refresh_every"), [("adamw", 1), ("adamw", 3), ("adafactor", 3), ("muon", 1)])
def test_a_round_killed_in_its_middle_ends_with_the_same_weights(
    tmp_path: Path, optimizer: Optimizer, refresh_every: int
) -> None:
    tiny = interrupted(tmp_path / "round", optimizer, refresh_every)
    # After 5 of 7 steps of the first epoch, and again after 9 of 14.
    for steps in (5, 9):
        process = start_process(tiny.run)
        while not step_folder(tiny.folder, steps).exists():
            assert process.is_alive()
            sleep(0.001)
        assert kill(process), "it was over before it could be killed"
        newest = latest(tiny.folder)
        assert newest is not None
        assert steps <= read_position(newest).step < STEPS
    resumed = tiny.run()
    assert 0 < resumed.steps <= STEPS - 9
    assert_same_end(resumed, optimizer, refresh_every)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "muon"])
def test_a_later_round_goes_on_with_optimizer_and_schedule(tmp_path: Path, optimizer: Optimizer) -> None:
    whole, first = uninterrupted(optimizer, 3)
    second = whole.model_copy(update={"folder": tmp_path / "whole", "start": first.checkpoint, "before": 1})
    expected = second.run()
    assert read_position(expected.checkpoint).step == 2 * STEPS
    # Without what the first round left behind, the end is another one.
    shutil.copytree(first.checkpoint / MODEL, tmp_path / "bare" / MODEL)
    bare = second.model_copy(update={"folder": tmp_path / "afresh", "start": tmp_path / "bare"}).run()
    assert bare.means["loss"] != expected.means["loss"]
    tiny = second.model_copy(update={"folder": tmp_path / "round"})
    process = start_process(tiny.run)
    while not step_folder(tiny.folder, 3).exists():
        assert process.is_alive()
        sleep(0.001)
    assert kill(process)
    assert_equal_bit_for_bit(tiny.run().checkpoint, expected.checkpoint)


@pytest.mark.parametrize("seed", range(6))
def test_a_round_killed_at_any_moment_ends_with_the_same_weights(tmp_path: Path, seed: int) -> None:
    """Nearly all of the time goes into writing checkpoints, so most of these die while one is written."""
    rng = Random(seed)
    tiny = interrupted(tmp_path / "round", "adamw", 3)
    process = start_process(tiny.run)
    while not tiny.folder.exists():
        assert process.is_alive()
        sleep(0.001)
    moments = [rng.uniform(0, 0.6) for _ in range(2)]
    sleep(moments[0])
    kill(process)
    process = start_process(tiny.run)
    sleep(moments[1] + 0.3)
    kill(process)
    assert_same_end(tiny.run(), "adamw", 3)


def test_a_round_that_is_over_is_only_looked_up(tmp_path: Path) -> None:
    _, expected = uninterrupted("adamw", 1)
    tiny = interrupted(tmp_path / "round", "adamw", 1)
    tiny.run()
    again = tiny.run()
    assert again.steps == 0
    assert again.means == expected.means
    assert_same_end(again, "adamw", 1)


def test_what_only_makes_it_faster_or_safer_changes_nothing(tmp_path: Path) -> None:
    tiny = interrupted(tmp_path / "round", "adamw", 1)
    other = tiny.optimisation.model_copy(update={"checkpoint_every_s": 3600.0, "log_every": 4})
    result = tiny.model_copy(update={"optimisation": other}).run()
    _, expected = uninterrupted("adamw", 1)
    assert_equal_bit_for_bit(result.checkpoint, expected.checkpoint)
    assert sorted(path.name for path in tiny.folder.glob("step-*")) == [f"step-{STEPS:08d}"]


def test_dropout_and_the_choices_matter_here() -> None:
    """Else the tests above would show little."""
    ends = [uninterrupted("adamw", refresh_every)[1].means["loss"] for refresh_every in (1, 3)]
    assert ends[0] != ends[1]
    whole, expected = uninterrupted("adamw", 1)
    folder = lasting_folder()
    without = whole.model_copy(update={"folder": folder / "round", "student": tiny_config(dropout=0.0)}).run()
    assert without.means["loss"] != expected.means["loss"]
    torch.testing.assert_close(without.means["loss"], expected.means["loss"], rtol=0.2, atol=0.0)
