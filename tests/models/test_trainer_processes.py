"""Two processes train like one: the same steps, and the same weights but for rounding."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models.checkpoints import read_position
from models.configs import OptimisationConfig
from models.folders import MODEL, read_steps
from models.methods import MethodConfig
from models.trainer import Trained
from tests.lasting import lasting_folder
from tests.models.tiny_round import TinyRound, end_state, run_together, write_plans

BASE: dict[str, Any] = {"batch_size": 4, "device": "cpu", "learning_rate": 1e-3, "log_every": 1}
# 13 examples: the last batch of an epoch holds a single one, so that one of two processes has none.
CASES: dict[str, tuple[MethodConfig, dict[str, Any]]] = {
    "whole": (MethodConfig(delta=9.0), {}),
    "in micro-batches": (MethodConfig(delta=9.0), {"micro_batch_size": 1}),
    "adafactor": (MethodConfig(delta=9.0), {"optimizer": "adafactor", "schedule": "cosine", "warmup_steps": 2}),
    "kept choices": (MethodConfig(delta=9.0, refresh_every=3), {"batch_size": 3}),
    "dss": (MethodConfig(name="dss"), {"batch_size": 5}),
    "mi": (MethodConfig(name="mi"), {"batch_size": 5}),
    "uneven micro-batches": (MethodConfig(delta=9.0, scheme="mean"), {"batch_size": 5, "micro_batch_size": 2}),
}


# With three, the third has none where the last batch holds two; it must learn of the others' choices all the same.
THREE = {"kept choices": (MethodConfig(delta=9.0, refresh_every=3), {"batch_size": 3})}


@cache
def trained(processes: int) -> dict[str, tuple[Trained, Path]]:
    """All cases in this process, and the rounds' folders of the same in several, which are started once for all."""
    folder = lasting_folder()
    cases = CASES if processes == 2 else THREE
    ones = {
        name: TinyRound(
            folder=folder / "one" / name,
            start=folder / "start",
            method=method,
            optimisation=OptimisationConfig.model_validate(BASE | settings),
            epochs=3 if processes == 2 else 6,
            examples=13 if processes == 2 else 59,
        )
        for name, (method, settings) in cases.items()
    }
    results = {name: tiny.run() for name, tiny in ones.items()}
    twos = [tiny.model_copy(update={"folder": folder / "several" / name}) for name, tiny in ones.items()]
    write_plans(twos, folder / "plans.json")
    run_together(processes, folder / "plans.json")
    return {name: (result, folder / "several" / name) for name, result in results.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_end_like_one(name: str) -> None:
    one, folder = trained(2)[name]
    two = end_state(folder / one.checkpoint.name)
    expected = end_state(one.checkpoint)
    assert two.keys() == expected.keys()
    assert two["plain"] == expected["plain"], "position, learning rates"
    start = load_file(folder.parents[1] / "start" / MODEL / "model.safetensors")
    for key, value in expected.items():
        if not isinstance(value, torch.Tensor):
            continue
        # AdamW divides by the gradient's own size, so where that is near 0 a single weight may differ by more than
        # rounding; the way that all of them went together may not.
        way = value - start[key.removeprefix("model ")] if key.startswith("model ") else value
        assert (two[key] - value).float().norm() <= 1e-3 * way.float().norm(), key


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_figures_of_two_processes_are_those_of_one(name: str) -> None:
    one, folder = trained(2)[name]
    lines, expected = read_steps(folder), read_steps(one.checkpoint.parent)
    assert len(lines) == len(expected)
    for line, wanted in zip(lines, expected, strict=True):
        assert line.keys() == wanted.keys()
        for key in line.keys() - {"seconds"}:
            assert line[key] == pytest.approx(wanted[key], rel=1e-4, abs=1e-6), key


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_the_choices_are_shared(processes: int) -> None:
    """Each process sees a part of the examples; what is stored knows them all."""
    one, folder = trained(processes)["kept choices"]
    choices = end_state(folder / one.checkpoint.name)["memory.choices"]
    assert torch.equal(choices, end_state(one.checkpoint)["memory.choices"])
    assert choices.shape == (13 if processes == 2 else 59, 3)
    assert bool((choices[:, 2] == 2).all()), "the third of three visits, or the sixth of six"
    assert read_position(folder / one.checkpoint.name).step == (15 if processes == 2 else 120)
