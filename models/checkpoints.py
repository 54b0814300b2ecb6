"""Checkpoints: everything a training run needs to resume as if it had never stopped.

    <checkpoint>/model/                 what was trained, as `Trainable.save` writes it (safetensors, config, tokenizer)
    <checkpoint>/optimizer.safetensors  the optimizer's tensors, and the module's own memory
    <checkpoint>/state.json             steps done, the optimizer's and the schedule's plain values

A checkpoint folder appears whole, by a rename, or not at all. No pickle anywhere. The random state is not stored:
every step seeds the generators from (seed, step, process), so it follows from the position.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from models.errors import BadCheckpoint
from models.folders import MODEL, OPTIMIZER, STATE, whole_folder

_PREFIX = "step-"


@dataclass(frozen=True)
class Position:
    """How far a training run has got.

    Attributes:
        step: optimizer steps done since round 0 began.
        step_of_round: steps done in the current round.
    """

    step: int = 0
    step_of_round: int = 0


def write_checkpoint(
    folder: Path,
    position: Position,
    save_model: Callable[[Path], None],
    optimizer: torch.optim.Optimizer,
    schedule: dict[str, Any],
    memory: dict[str, torch.Tensor],
) -> Path:
    """Writes a checkpoint; `folder` exists only once it is complete.

    Args:
        folder: created; an existing one is replaced.
        position: steps done.
        save_model: writes the trained module into the folder it is given.
        optimizer: its state is stored.
        schedule: the learning-rate schedule's `state_dict()`.
        memory: the module's own tensors that are not parameters.
    """
    with whole_folder(folder) as partial:
        save_model(partial / MODEL)
        tensors = {f"memory.{name}": value.detach().cpu().contiguous() for name, value in memory.items()}
        state = optimizer.state_dict()
        for index, values in state["state"].items():
            for name, value in values.items():
                # Adafactor counts its steps in a plain number where AdamW has a tensor.
                tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value)
                tensors[f"optimizer.{index}.{name}"] = tensor.detach().cpu().contiguous()
        save_file(tensors, partial / OPTIMIZER)
        plain = {
            "step": position.step,
            "step_of_round": position.step_of_round,
            "param_groups": state["param_groups"],
            "schedule": {name: value for name, value in schedule.items() if name != "lr_lambdas"},
        }
        (partial / STATE).write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    return folder


def read_position(checkpoint: Path) -> Position:
    """The steps done at a checkpoint; 0 for one that holds only a model (before training).

    Raises:
        BadCheckpoint: it is damaged.
    """
    if not (checkpoint / STATE).is_file():
        return Position()
    state = _read_state(checkpoint)
    return Position(int(state["step"]), int(state["step_of_round"]))


def restore(
    checkpoint: Path, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler
) -> dict[str, torch.Tensor]:
    """Restores optimizer and schedule from a checkpoint.

    Returns:
        The module's own memory.

    Raises:
        BadCheckpoint: it is damaged, or belongs to another model or optimizer.
    """
    state = _read_state(checkpoint)
    try:
        tensors = load_file(checkpoint / OPTIMIZER)
    except (SafetensorError, OSError) as error:
        raise BadCheckpoint(
            f"{checkpoint / OPTIMIZER} is damaged ({error}); remove {checkpoint} and the checkpoint before it is taken."
        ) from error
    values: dict[int, dict[str, torch.Tensor]] = {}
    memory = {}
    for key, tensor in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "memory":
            memory[rest] = tensor
        else:
            index, _, name = rest.partition(".")
            values.setdefault(int(index), {})[name] = tensor
    try:
        optimizer.load_state_dict({"state": values, "param_groups": state["param_groups"]})
        schedule.load_state_dict(state["schedule"] | {"lr_lambdas": [None]})
    except (ValueError, KeyError) as error:
        raise BadCheckpoint(f"{checkpoint} belongs to another model or optimizer: {error}") from error
    return memory


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint of a round that was interrupted, or None."""
    found = sorted(folder.glob(f"{_PREFIX}[0-9]*")) if folder.is_dir() else []
    return found[-1] if found else None


def drop_older(folder: Path) -> None:
    """Removes all but a round's newest two checkpoints: the second is the fallback if the newest is damaged."""
    for old in sorted(folder.glob(f"{_PREFIX}[0-9]*"))[:-2]:
        gone = folder / f".{old.name}.partial-{os.getpid()}"
        old.rename(gone)  # a killed process must not leave half a checkpoint under a checkpoint's name
        shutil.rmtree(gone)


def step_folder(folder: Path, step_of_round: int) -> Path:
    """Where the checkpoint after so many steps of a round goes."""
    return folder / f"{_PREFIX}{step_of_round:08d}"


def _read_state(checkpoint: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadCheckpoint(
            f"{checkpoint / STATE} cannot be read ({error}); remove {checkpoint} and the checkpoint before it is taken."
        ) from error
    return state
