"""The loop against a plain one written out here: batches, accumulation, clipping, schedules, precision, divergence."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Adafactor

from models.checkpoints import Position, read_position
from models.configs import OptimisationConfig, Schedule
from models.errors import TrainingDiverged
from models.folders import MODEL, read_steps, whole_folder
from models.trainer import RoundPlan, Trained, train
from tests.models.tiny_round import TinyRound, end_state, tiny_config

EXAMPLES, WIDTH = 11, 4
INPUTS = torch.rand(EXAMPLES, WIDTH, generator=torch.Generator().manual_seed(1)) - 0.5
TARGETS = 3 * INPUTS.sum(dim=1) + 1
BATCHES = [[0, 3, 5, 7], [1, 2, 9, 10], [4, 6, 8], [2, 1, 0, 4], [10]]
CONFIG = OptimisationConfig(device="cpu", learning_rate=0.05, schedule="constant", log_every=1)


class Line(torch.nn.Module):
    """Fits a line; its loss is a sum over the examples."""

    bytes_of_an_example = 0

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(WIDTH, 1)
        self.spoil: Callable[[Tensor], Tensor] = lambda loss: loss

    def forward(self, index: Tensor) -> dict[str, Tensor]:
        error = self.layer(INPUTS[index]).squeeze(1).float() - TARGETS[index]
        return {"loss": self.spoil(error.square().sum()), "distance": error.abs().sum().detach()}

    def step_bytes(self, index: Tensor) -> int:
        return self.bytes_of_an_example * len(index)

    def memory(self) -> dict[str, Tensor]:
        return {}

    def remember(self, memory: Mapping[str, Tensor]) -> None:
        assert not memory

    def synchronise(self) -> None: ...

    def save(self, folder: Path) -> None:
        folder.mkdir()
        save_file(self.state_dict(), folder / "line.safetensors")


def load(folder: Path) -> Line:
    line = Line()
    line.load_state_dict(load_file(folder / "line.safetensors"))
    return line


@pytest.fixture
def start(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    with whole_folder(tmp_path / "start") as partial:
        Line().save(partial / MODEL)
    return tmp_path / "start"


def trained(
    start: Path,
    config: OptimisationConfig,
    batches: Sequence[Sequence[int]] = BATCHES,
    *,
    total: int | None = None,
    making: Callable[[Path], Line] = load,
    name: str = "round",
    reports: list[dict[str, float]] | None = None,
) -> Trained:
    plan = RoundPlan(batches, 0, len(batches) if total is None else total)
    told = None if reports is None else reports.append
    return train(making, lambda index: torch.tensor(list(index)), plan, config, start.parent / name, start, told)


def weights(result: Trained) -> dict[str, Tensor]:
    return load_file(result.checkpoint / MODEL / "line.safetensors")


def plainly(
    start: Path, config: OptimisationConfig, rates: Sequence[float], batches: Sequence[Sequence[int]] = BATCHES
) -> dict[str, Tensor]:
    """What training is: the mean loss of the whole batch, its gradient shortened, one step."""
    line = load(start / MODEL)
    groups = [
        {"params": [line.layer.weight], "weight_decay": config.weight_decay},
        {"params": [line.layer.bias], "weight_decay": 0.0},
    ]
    kinds: dict[str, Any] = {
        "adamw": lambda: torch.optim.AdamW(groups, lr=1.0),
        "adafactor": lambda: Adafactor(groups, lr=1.0, relative_step=False, scale_parameter=False),
    }
    optimizer = kinds[config.optimizer]()
    for batch, rate in zip(batches, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        error = line.layer(INPUTS[list(batch)]).squeeze(1) - TARGETS[list(batch)]
        gradients = torch.autograd.grad(error.square().mean(), list(line.parameters()))
        length = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        shorter = min(1.0, config.clip_norm / length) if config.clip_norm else 1.0
        for weight, gradient in zip(line.parameters(), gradients, strict=True):
            weight.grad = gradient * shorter
        optimizer.step()
    return line.state_dict()


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


# ---- batches, optimizers, clipping ----


@pytest.mark.parametrize("micro_batch_size", [None, 1, 3])
@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_a_step_follows_the_mean_of_its_whole_batch(start: Path, optimizer: str, micro_batch_size: int | None) -> None:
    update = {"optimizer": optimizer, "micro_batch_size": micro_batch_size, "weight_decay": 0.1}
    config = OptimisationConfig.model_validate(CONFIG.model_dump() | update)
    result = trained(start, config)
    assert result.steps == len(BATCHES)
    assert read_position(result.checkpoint) == Position(5, 5)
    assert_close(weights(result), plainly(start, config, [0.05] * 5))


@pytest.mark.parametrize(("room", "at_once"), [(1000, 4), (99, 3), (50, 2), (1, 1)])
def test_a_batch_is_split_as_the_memory_asks(
    start: Path, monkeypatch: pytest.MonkeyPatch, room: int, at_once: int
) -> None:
    """An example needs 25 bytes here, and the batches have up to four."""
    sizes: list[int] = []

    class Large(Line):
        bytes_of_an_example = 25

        def forward(self, index: Tensor) -> dict[str, Tensor]:
            sizes.append(len(index))
            return super().forward(index)

    def load_large(folder: Path) -> Line:
        line = Large()
        line.load_state_dict(load(folder).state_dict())
        return line

    monkeypatch.setattr("models.trainer.room", lambda *_: room)
    found = trained(start, CONFIG, making=load_large)
    assert max(sizes) == at_once
    by_hand = trained(start, CONFIG.model_copy(update={"micro_batch_size": at_once}), name="by hand")
    for name, value in weights(by_hand).items():
        assert torch.equal(weights(found)[name], value)


@pytest.mark.parametrize("clip_norm", [0.0, 0.01, 1.0, 1e6])
def test_gradients_are_shortened_to_the_limit_and_0_is_no_limit(start: Path, clip_norm: float) -> None:
    config = CONFIG.model_copy(update={"clip_norm": clip_norm, "optimizer": "adafactor", "micro_batch_size": 2})
    result = trained(start, config)
    assert_close(weights(result), plainly(start, config, [0.05] * 5))
    # What is reported is the length before.
    assert all(line["gradient_norm"] > 0.5 for line in read_steps(start.parent / "round")[:3])


def rate(schedule: Schedule, step: int, warmup: int, total: int) -> float:
    """The learning rate of the step after `step` others, as a share of its peak."""
    if step < warmup:
        return step / warmup
    if schedule == "constant":
        return 1.0
    done = (step - warmup) / (total - warmup)
    return 1 - done if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


@pytest.mark.parametrize("warmup", [0, 2])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_rate_follows_its_schedule_over_all_rounds(start: Path, schedule: Schedule, warmup: int) -> None:
    config = CONFIG.model_copy(update={"schedule": schedule, "warmup_steps": warmup})
    total = 3 * len(BATCHES)
    first = trained(start, config, total=total, name="first")
    second = train(load, torch.tensor, RoundPlan(BATCHES, 5, total), config, start.parent / "second", first.checkpoint)
    rates = [0.05 * rate(schedule, step, warmup, total) for step in range(total)]
    assert read_position(second.checkpoint) == Position(10, 5)
    assert_close(weights(second), plainly(start, config, rates[:10], BATCHES * 2))
    lines = [*read_steps(start.parent / "first"), *read_steps(start.parent / "second")]
    assert [line["step"] for line in lines] == list(range(1, 11))
    # A line is written after its step, when the rate is that of the next one.
    assert [line["learning_rate"] for line in lines] == pytest.approx(rates[1:11])


def test_the_figures_are_means_over_examples(start: Path) -> None:
    reports: list[dict[str, float]] = []
    result = trained(start, CONFIG.model_copy(update={"log_every": 2}), reports=reports)
    assert [(line["step_of_round"], line["examples"]) for line in reports] == [(2, 8), (4, 7), (5, 1)]
    assert read_steps(start.parent / "round") == reports
    every_step: list[dict[str, float]] = []
    trained(start, CONFIG, reports=every_step, name="again")
    assert [line["examples"] for line in every_step] == [len(batch) for batch in BATCHES]
    assert result.means.keys() == {"loss", "distance"}
    for name, value in result.means.items():
        assert value == pytest.approx(sum(line[name] * line["examples"] for line in every_step) / 16)
    error = load(start / MODEL).layer(INPUTS[BATCHES[0]]).squeeze(1) - TARGETS[BATCHES[0]]
    assert every_step[0]["loss"] == pytest.approx(error.square().mean().item())


def test_a_round_without_steps_ends_where_it_began(start: Path) -> None:
    result = trained(start, CONFIG, [])
    assert (result.checkpoint, result.steps, result.means) == (start, 0, {})


# ---- precision ----


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_student_is_trained_in_either_precision(tmp_path: Path, precision: str) -> None:
    optimisation = {"batch_size": 4, "device": "cpu", "learning_rate": 1e-3, "precision": precision}
    tiny = TinyRound(
        folder=tmp_path / "round",
        start=tmp_path / "start",
        student=tiny_config(dropout=0.1),
        optimisation=OptimisationConfig.model_validate(optimisation),
    )
    result = tiny.run()
    state = end_state(result.checkpoint)
    tensors = [value for value in state.values() if isinstance(value, Tensor) and value.is_floating_point()]
    assert all(value.dtype == torch.float32 for value in tensors), "the weights stay in float32"
    assert all(bool(value.isfinite().all()) for value in tensors)
    assert all(math.isfinite(mean) for mean in result.means.values())
    # Another precision in the same process is another result, and no error.
    other = "float32" if precision == "bfloat16" else "bfloat16"
    again = TinyRound(
        folder=tmp_path / "again",
        start=tmp_path / "start",
        student=tiny.student,
        optimisation=OptimisationConfig.model_validate(optimisation | {"precision": other}),
    ).run()
    assert again.means["loss"] != result.means["loss"]
    assert again.means["loss"] == pytest.approx(result.means["loss"], rel=0.02)


@pytest.mark.parametrize("name", ["float16", "fp16", "half"])
def test_float16_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ValidationError, match="T5 overflows to NaN in float16; use bfloat16 or float32"):
        OptimisationConfig.model_validate({"precision": name})


# ---- divergence ----


def spoilt(how: Callable[[Tensor], Tensor], after: int) -> Callable[[Path], Line]:
    """Loads a line whose loss is spoilt after so many batches."""

    def make(folder: Path) -> Line:
        line, seen = load(folder), 0

        def spoil(loss: Tensor) -> Tensor:
            nonlocal seen
            seen += 1
            return how(loss) if seen > after else loss

        line.spoil = spoil
        return line

    return make


def root_of_nothing(loss: Tensor) -> Tensor:
    return loss + (loss - loss).sqrt()  # 0, but with a gradient of inf * 0


MANY = [BATCHES[step % 5] for step in range(60)]


@pytest.mark.parametrize(
    ("how", "what"),
    [
        (lambda loss: loss * torch.nan, "the loss is nan"),
        (lambda loss: loss * torch.inf, "the loss is inf"),
        (root_of_nothing, "the gradient_norm is nan"),
    ],
)
@pytest.mark.parametrize("log_every", [1, 4])
def test_a_loss_or_gradient_that_is_no_number_stops_the_round(
    start: Path, how: Callable[[Tensor], Tensor], what: str, log_every: int
) -> None:
    config = CONFIG.model_copy(update={"log_every": log_every, "checkpoint_every_s": 1e-9})
    with pytest.raises(TrainingDiverged) as caught:
        trained(start, config, MANY, making=spoilt(how, 9))
    text = str(caught.value)
    good = start.parent / "round" / f"step-{9 // log_every * log_every:08d}"
    stopped = -(-10 // log_every) * log_every
    what = what if log_every == 1 else "the loss is nan"  # by then the weights are no numbers either
    assert text == (
        f"Training stopped at the round's step {stopped} of 60: {what}. The last good checkpoint is {good}; lower "
        "the learning_rate or set optimisation.clip_norm."
    )
    assert all(bool(value.isfinite().all()) for value in load(good / MODEL).state_dict().values())
    # With the cause mended, the same call goes on from there.
    result = trained(start, config, MANY)
    assert result.steps == 60 - 9 // log_every * log_every


def test_before_any_checkpoint_of_the_round_the_last_good_one_is_the_start(start: Path) -> None:
    with pytest.raises(TrainingDiverged, match=f"The last good checkpoint is {start};"):
        trained(start, CONFIG, making=spoilt(lambda loss: loss * torch.nan, 0))
    load(start / MODEL)


def test_a_huge_learning_rate_stops_the_round_of_a_student(tmp_path: Path) -> None:
    optimisation = OptimisationConfig(batch_size=4, device="cpu", learning_rate=1e9, log_every=1, clip_norm=0)
    tiny = TinyRound(folder=tmp_path / "round", start=tmp_path / "start", optimisation=optimisation, epochs=10)
    with pytest.raises(TrainingDiverged, match=r"lower the learning_rate"):
        tiny.run()


def growing(start: Path, name: str, config: OptimisationConfig, factor: float) -> None:
    """The loss doubles slowly, from batch to batch."""
    grown = 1.0

    def grow(loss: Tensor) -> Tensor:
        nonlocal grown
        grown *= factor
        return loss * 0 + 2 * grown

    trained(start, config, [[0, 1]] * 100, making=spoilt(grow, 0), name=name)


def test_a_loss_that_grows_without_end_stops_the_round(start: Path) -> None:
    config = CONFIG.model_copy(update={"divergence_factor": 10.0, "checkpoint_every_s": 1e-9})
    with pytest.raises(TrainingDiverged) as caught:
        growing(start, "up", config, 1.05)
    text = str(caught.value)
    assert "the loss has grown from 1.05 to 10." in text
    assert "(optimisation.divergence_factor is 10)" in text
    lines = read_steps(start.parent / "up")
    good = start.parent / "up" / f"step-{len(lines):08d}"
    assert f"The last good checkpoint is {good};" in text
    load(good / MODEL)
    growing(start, "down", config, 0.99)  # one that falls does not


def test_a_small_loss_may_grow_tenfold(start: Path) -> None:
    config = CONFIG.model_copy(update={"divergence_factor": 10.0})
    trained(start, config, [[0, 1]] * 60, making=spoilt(lambda loss: loss * 0 + 0.002, 0), name="low")
    making = spoilt(lambda loss: loss * 0 + 0.2, 30)
    trained(start, config, [[0, 1]] * 60, making=making, name="higher")


def test_a_round_that_is_resumed_knows_how_low_its_loss_was(start: Path) -> None:
    config = CONFIG.model_copy(update={"divergence_factor": 3.0, "checkpoint_every_s": 1e-9})

    class KilledError(Exception):
        """Stands for kill -9."""

    def killed(_: Tensor) -> Tensor:
        raise KilledError

    low = spoilt(lambda loss: loss * 0 + 2.0, 0)
    with pytest.raises(KilledError):
        trained(start, config, [[0]] * 50, making=lambda folder: _both(low(folder), killed, 20))
    with pytest.raises(TrainingDiverged, match=r"step 21 of 50: the loss has grown from 2 to 9\.96 "):
        trained(start, config, [[0]] * 50, making=spoilt(lambda loss: loss * 0 + 400.0, 0))


def _both(line: Line, then: Callable[[Tensor], Tensor], after: int) -> Line:
    first, seen = line.spoil, 0

    def spoil(loss: Tensor) -> Tensor:
        nonlocal seen
        seen += 1
        return then(loss) if seen > after else first(loss)

    line.spoil = spoil
    return line
