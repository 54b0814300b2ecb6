"""Checkpoints: whole or not there, everything comes back exactly, damage is named."""

import os
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import torch
from transformers import Adafactor, get_scheduler

from models.checkpoints import Position, drop_older, latest, read_position, restore, step_folder, write_checkpoint
from models.errors import BadCheckpoint
from models.folders import MODEL, OPTIMIZER, STATE, whole_folder
from tests.models.tiny_round import kill, start_process


def save_nothing(folder: Path) -> None:
    folder.mkdir()
    (folder / "weights").write_text("weights")


def adamw(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1)


def adafactor(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    made: torch.optim.Optimizer = Adafactor(parameters, lr=1e-2, relative_step=False, scale_parameter=False)
    return made


class Trained:
    """Two weights after some steps of an optimizer; one of them has had no gradient so far."""

    def __init__(self, make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]) -> None:
        torch.manual_seed(0)
        self.weights = [torch.nn.Parameter(torch.rand(3, 4)), torch.nn.Parameter(torch.rand(5))]
        self.optimizer = make(self.weights)
        self.schedule = get_scheduler("cosine", self.optimizer, 3, 20)

    def step(self, number: int) -> None:
        self.weights[0].grad = torch.rand(3, 4, generator=torch.Generator().manual_seed(number))
        if number > 6:
            self.weights[1].grad = torch.ones(5)
        self.optimizer.step()
        self.schedule.step()

    def write(self, folder: Path, memory: dict[str, torch.Tensor] | None = None) -> Path:
        state = self.schedule.state_dict()
        return write_checkpoint(folder, Position(105, 5), save_nothing, self.optimizer, state, memory or {})


@pytest.mark.parametrize("make", [adamw, adafactor])
def test_optimizer_schedule_and_memory_come_back_exactly(
    make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer], tmp_path: Path
) -> None:
    first, second = Trained(make), Trained(make)
    for number in range(5):
        first.step(number)
    memory = {"choices": torch.tensor([[1, -1, 2]], dtype=torch.int32)}
    checkpoint = first.write(tmp_path / "deep" / "step-00000005", memory)
    assert read_position(checkpoint) == Position(105, 5)
    for weight, value in zip(second.weights, first.weights, strict=True):
        weight.data.copy_(value.data)
    remembered = restore(checkpoint, second.optimizer, second.schedule)
    assert remembered.keys() == {"choices"}
    assert remembered["choices"].dtype == torch.int32
    assert torch.equal(remembered["choices"], memory["choices"])
    for number in range(5, 12):
        assert second.schedule.get_last_lr() == first.schedule.get_last_lr()
        first.step(number)
        second.step(number)
    for weight, value in zip(second.weights, first.weights, strict=True):
        assert torch.equal(weight, value)
    assert not list(tmp_path.rglob("*.pt")), "a pickle"
    assert not list(tmp_path.rglob("*.bin")), "a pickle"


def test_a_folder_with_a_model_only_is_the_beginning(tmp_path: Path) -> None:
    (tmp_path / MODEL).mkdir()
    assert read_position(tmp_path) == Position(0, 0)


def test_the_newest_is_the_one_of_the_most_steps(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    assert latest(tmp_path / "nowhere") is None
    for steps in (9, 10, 2, 100000000):
        step_folder(tmp_path, steps).mkdir()
    (tmp_path / ".step-99999999.partial-1").mkdir()
    found = latest(tmp_path)
    assert found is not None
    assert found.name == "step-100000000"
    (tmp_path / "step-100000000").rmdir()
    assert latest(tmp_path) == step_folder(tmp_path, 10)


def test_only_the_newest_two_of_a_round_are_kept(tmp_path: Path) -> None:
    drop_older(tmp_path)
    for steps in (3, 7, 12, 20):
        save_nothing(step_folder(tmp_path, steps))
    drop_older(tmp_path)
    assert sorted(tmp_path.iterdir()) == [step_folder(tmp_path, 12), step_folder(tmp_path, 20)]


def test_what_is_there_is_replaced_and_what_fails_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    for text in ("old", "new"):
        with whole_folder(folder) as partial:
            assert not (partial / "text").exists()
            (partial / "text").write_text(text)
            (partial / "text").chmod(0o600)
    assert (folder / "text").read_text() == "new"
    assert (folder / "text").stat().st_mode & 0o777 == 0o644

    def fill_and_fail() -> None:
        with whole_folder(folder) as partial:
            (partial / "text").write_text("half")
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk is full"):
        fill_and_fail()
    assert (folder / "text").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def write_slowly(folder: Path, ready: Path) -> None:
    def save(model: Path) -> None:
        save_nothing(model)
        ready.touch()
        sleep(600)

    trained = Trained(adamw)
    write_checkpoint(folder, Position(), save, trained.optimizer, trained.schedule.state_dict(), {})


def test_a_process_killed_while_writing_leaves_no_checkpoint(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    process = start_process(write_slowly, step_folder(tmp_path, 1), ready)
    while not ready.exists():
        assert process.is_alive()
        sleep(0.01)
    assert kill(process)
    assert latest(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir() if path != ready] == [f".step-00000001.partial-{process.pid}"]


def damage_optimizer(checkpoint: Path) -> None:
    os.truncate(checkpoint / OPTIMIZER, 20)


def remove_optimizer(checkpoint: Path) -> None:
    (checkpoint / OPTIMIZER).unlink()


def damage_state(checkpoint: Path) -> None:
    os.truncate(checkpoint / STATE, 20)


@pytest.mark.parametrize("damage", [damage_optimizer, remove_optimizer, damage_state])
def test_a_damaged_checkpoint_is_named_with_what_to_do(damage: Callable[[Path], None], tmp_path: Path) -> None:
    trained = Trained(adamw)
    trained.step(0)
    checkpoint = trained.write(tmp_path / "step-00000005")
    damage(checkpoint)
    with pytest.raises(BadCheckpoint) as caught:
        restore(checkpoint, trained.optimizer, trained.schedule)
    text = str(caught.value)
    assert str(checkpoint) in text
    assert f"remove {checkpoint} and the checkpoint before it is taken" in text
    assert "\n" not in text


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    trained: Any = Trained(adamw)
    trained.step(0)
    checkpoint = trained.write(tmp_path / "step-00000005")
    other = Trained(lambda weights: adamw(weights[:1]))
    with pytest.raises(BadCheckpoint, match="belongs to another model or optimizer"):
        restore(checkpoint, other.optimizer, other.schedule)
