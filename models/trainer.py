"""The training loop, for whatever module computes a loss: the student, the discriminator.

One loop for one CPU, one GPU and several of either (accelerate). The sum of the examples' losses over the examples of
the whole batch is what is minimised, however a batch is spread over processes and micro-batches, so neither changes the
result beyond rounding. A training that was killed goes on from its last checkpoint and, on a CPU, ends with the same
weights bit for bit.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, broadcast
from transformers import Adafactor, get_scheduler

from models.batches import micro_batches, share
from models.checkpoints import Position, drop_older, latest, read_position, restore, step_folder, write_checkpoint
from models.configs import OptimisationConfig
from models.cpu_linear import faster_linears
from models.errors import TrainingDiverged
from models.folders import MODEL, STATE, STEPS_FILE, read_steps
from models.memory import fitting, room
from models.muon import MuonAndAdamW, sorted_parameters
from models.precision import decided_precision, product_precision
from models.seeds import derived_seed

PATIENCE_S = 600.0
"""How long a process waits for the others in one exchange: what one does alone, such as writing a checkpoint, is
shorter, and a node that is out of reach is noticed."""


def torch_device(config: OptimisationConfig) -> torch.device:
    """The device that models are placed on."""
    return torch.device("cuda" if config.device == "auto" and torch.cuda.is_available() else "cpu")


class Trainable(Protocol):
    """What the loop trains: a `torch.nn.Module` with these."""

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        """Sums over the batch's examples, each a scalar; "loss" is what is minimised."""

    def step_bytes(self, batch: Any) -> int:
        """About how much memory a step with the batch takes, beside weights, gradients and optimizer."""

    def save(self, folder: Path) -> None:
        """Writes the trained weights and all that is needed to load them."""

    def memory(self) -> dict[str, torch.Tensor]:
        """Tensors that are not parameters but that an exact resume needs."""

    def remember(self, memory: Mapping[str, torch.Tensor]) -> None:
        """Takes `memory` back."""

    def synchronise(self) -> None:
        """Called after each step where several processes train: shares what each of them remembers."""


@dataclass(frozen=True)
class RoundPlan:
    """The steps of one round.

    Attributes:
        batches: indices of the examples of every step of this round.
        first_step: steps of the rounds before.
        total_steps: steps of all rounds; what the schedule ends at.
    """

    batches: Sequence[Sequence[int]]
    first_step: int
    total_steps: int


@dataclass(frozen=True)
class Trained:
    """A finished round.

    Attributes:
        checkpoint: what it ended with.
        means: each figure of `Trainable.forward` per example, mean over the round; "learning_rate" at its end.
        steps: optimizer steps made by this call (fewer than the plan's after a resume).
        seconds: how long they took.
    """

    checkpoint: Path
    means: dict[str, float]
    steps: int
    seconds: float


StepReport = Callable[[dict[str, float]], None]
"""Told "step" (of all rounds), "step_of_round", "steps_of_round" and the mean figures since the last report."""


def train(
    load: Callable[[Path], Any],
    collate: Callable[[Sequence[int]], Any],
    plan: RoundPlan,
    config: OptimisationConfig,
    folder: Path,
    start: Path,
    on_report: StepReport | None = None,
) -> Trained:
    """Trains one round, or what is left of it.

    Args:
        load: makes the module (a `Trainable`) from a checkpoint's model folder.
        collate: makes a batch of tensors from indices of examples.
        plan: the round's steps.
        config: how to train.
        folder: of the round; its newest checkpoint is taken up again, and its last one is the result.
        start: the checkpoint that the previous round ended with.
        on_report: called at every look at the loss, on the first process only.

    Raises:
        TrainingDiverged: the loss or a gradient is no number, or the loss grew without end; names the last good
            checkpoint.
        BadCheckpoint: a checkpoint is damaged.
    """
    accelerator = _accelerator(config)
    checkpoint = latest(folder) or start
    module = load(checkpoint / MODEL)
    optimizer, schedule = _optimizer(module, config, plan.total_steps)
    if (checkpoint / STATE).is_file():
        memory = restore(checkpoint, optimizer, schedule)
        if checkpoint != start:  # a new round has new candidates: what was remembered of the old ones does not hold
            module.remember(memory)
    first = read_position(checkpoint).step_of_round if checkpoint != start else 0
    wrapped, optimizer = accelerator.prepare(module, optimizer)
    module.train()
    available = _available(accelerator, module)
    record = _Record(folder, plan, config, accelerator, checkpoint, first, on_report)
    saved = started = time.monotonic()
    with faster_linears(module):
        for done in range(first + 1, len(plan.batches) + 1):
            batch = plan.batches[done - 1]
            # Dropout follows from the position alone, so a resumed run needs no stored random state.
            torch.manual_seed(derived_seed("step", config.seed, plan.first_step + done, accelerator.process_index))
            _backward(accelerator, module, wrapped, collate, batch, config.micro_batch_size, available, record)
            norm = accelerator.clip_grad_norm_(wrapped.parameters(), config.clip_norm or math.inf)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            if accelerator.num_processes > 1:
                module.synchronise()
            record.step(len(batch), norm)
            finished = done == len(plan.batches)
            if not finished and done % config.log_every:
                continue
            record.look(done, float(schedule.get_last_lr()[0]))
            if finished or _first_process_says(accelerator, time.monotonic() - saved >= config.checkpoint_every_s):
                checkpoint = step_folder(folder, done)
                if accelerator.is_main_process:
                    position = Position(plan.first_step + done, done)
                    write_checkpoint(
                        checkpoint, position, module.save, optimizer, schedule.state_dict(), module.memory()
                    )
                    drop_older(folder)
                accelerator.wait_for_everyone()
                record.last_good = checkpoint
                saved = time.monotonic()
    module.eval()
    if accelerator.device.type == "cuda":
        accelerator.free_memory()  # collects garbage, which takes a third of a second and frees no more on a CPU
    return Trained(checkpoint, record.means(), len(plan.batches) - first, time.monotonic() - started)


def _backward(
    accelerator: Accelerator,
    module: Any,
    wrapped: Any,
    collate: Callable[[Sequence[int]], Any],
    batch: Sequence[int],
    micro_batch_size: int | None,
    available: int,
    record: "_Record",
) -> None:
    """The gradients of one batch: this process's share of it, in pieces that fit into the available bytes."""
    world, rank = accelerator.num_processes, accelerator.process_index
    largest = share(batch, 0, world)  # every process goes by the first one's share: all must make as many pieces
    collated = None
    if micro_batch_size is None:
        collated = collate(largest)
        micro_batch_size = fitting(module.step_bytes(collated), available, len(largest))
    pieces = micro_batches(share(batch, rank, world), micro_batch_size)
    number_of_pieces = -(-len(largest) // micro_batch_size)
    for number in range(number_of_pieces):
        piece = pieces[number] if number < len(pieces) else []
        weight = 1.0 if piece else 0.0  # a process that has no example left takes part with one that counts nothing
        exchange = nullcontext() if number == number_of_pieces - 1 else accelerator.no_sync(wrapped)
        if not piece:
            wrapped.eval()  # nor may the module remember anything of it: another process has that example too
        with exchange:
            whole = collated is not None and piece == largest
            sums = wrapped(collated if whole else collate(piece or batch[:1]))
            # Processes average their gradients; times `world` makes that a sum over the whole batch.
            accelerator.backward(sums["loss"] * (weight * world / len(batch)))
        record.add(sums, weight)
        if not piece:
            wrapped.train()


def _available(accelerator: Accelerator, module: torch.nn.Module) -> int:
    """Bytes that a step may take; in every process those of the first, since their GPUs may differ."""
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    bytes_here = torch.tensor([room(accelerator.device, trained)], device=accelerator.device)
    return int((broadcast(bytes_here) if accelerator.num_processes > 1 else bytes_here).item())


class _Record:
    """The figures of a round: summed up on the way, looked at now and then, written to `steps.jsonl`."""

    def __init__(
        self,
        folder: Path,
        plan: RoundPlan,
        config: OptimisationConfig,
        accelerator: Accelerator,
        last_good: Path,
        first: int,
        on_report: StepReport | None,
    ) -> None:
        self.last_good = last_good
        self._file, self._plan, self._config, self._accelerator = folder / STEPS_FILE, plan, config, accelerator
        self._on_report = on_report
        self._sums: dict[str, torch.Tensor] = {}
        self._examples = 0
        self._norm = torch.zeros(())
        self._since = time.monotonic()
        self._steps = 0
        self._running: float | None = None
        self._lowest = math.inf
        # What came after the checkpoint is done again, so its lines go.
        self._lines = [line for line in read_steps(folder) if line["step_of_round"] <= first]
        before = 0.0
        for line in self._lines:
            self._follow(line["loss"], line["step_of_round"] - before)
            before = line["step_of_round"]
        if accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / f".{STEPS_FILE}.partial-{os.getpid()}"
            partial.write_text("".join(json.dumps(line) + "\n" for line in self._lines), encoding="utf-8")
            partial.replace(self._file)

    def add(self, sums: Mapping[str, torch.Tensor], weight: float) -> None:
        for name, value in sums.items():
            value = value.detach() * weight
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def step(self, examples: int, norm: torch.Tensor) -> None:
        self._examples += examples
        self._steps += 1
        self._norm = torch.maximum(self._norm.to(norm.device), norm.detach())

    def look(self, done: int, learning_rate: float) -> None:
        """Reads the figures (which waits for a GPU), checks them, and writes a line."""
        names = sorted(self._sums)
        summed = self._accelerator.reduce(torch.stack([self._sums[name].float() for name in names]))
        means = {name: value / self._examples for name, value in zip(names, summed.tolist(), strict=True)}
        seconds = time.monotonic() - self._since
        line = means | {
            "step": self._plan.first_step + done,
            "step_of_round": done,
            "steps_of_round": len(self._plan.batches),
            "examples": self._examples,
            "gradient_norm": float(self._norm),
            "learning_rate": learning_rate,
            "seconds": round(seconds, 4),
        }
        self._check(line)
        self._lines.append(line)
        self._sums, self._examples, self._norm, self._steps = {}, 0, torch.zeros(()), 0
        self._since = time.monotonic()
        if self._accelerator.is_main_process:
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
            if self._on_report:
                self._on_report(line)

    def _check(self, line: dict[str, float]) -> None:
        where = f"round's step {line['step_of_round']:.0f} of {line['steps_of_round']:.0f}"
        advice = f"The last good checkpoint is {self.last_good}; lower the learning_rate or set optimisation.clip_norm."
        for name in ("loss", "gradient_norm"):
            if not math.isfinite(line[name]):
                raise TrainingDiverged(f"Training stopped at the {where}: the {name} is {line[name]}. {advice}")
        running = self._follow(line["loss"], self._steps)
        # A loss near 0 may well grow tenfold without harm.
        if running > self._config.divergence_factor * max(self._lowest, 0.5):
            raise TrainingDiverged(
                f"Training stopped at the {where}: the loss has grown from {self._lowest:.3g} to {running:.3g} "
                f"(optimisation.divergence_factor is {self._config.divergence_factor:g}). {advice}"
            )

    def _follow(self, loss: float, steps: float) -> float:
        """The running mean of the loss after so many more steps; keeps its lowest value."""
        share_of_new = min(1.0, steps / 50)
        before = loss if self._running is None else self._running
        self._running = (1 - share_of_new) * before + share_of_new * loss
        self._lowest = min(self._lowest, self._running)
        return self._running

    def means(self) -> dict[str, float]:
        """Each figure's mean per example over the round."""
        left_out = ("step", "step_of_round", "steps_of_round", "examples", "learning_rate", "seconds", "gradient_norm")
        examples = sum(line["examples"] for line in self._lines)
        names = [name for name in (self._lines[0] if self._lines else {}) if name not in left_out]
        return {name: sum(line[name] * line["examples"] for line in self._lines) / examples for name in names}


def _accelerator(config: OptimisationConfig) -> Accelerator:
    precision = {"float32": "no", "bfloat16": "bf16"}[decided_precision(config)]
    # accelerate keeps one state a process and refuses another precision in it; a worker that trains one model after
    # another may need one.
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state(reset_partial_state=False)
    # Said even where there is no GPU: else accelerate (1.15) takes each of several processes for the only one.
    cpu = torch_device(config).type == "cpu"
    patience = InitProcessGroupKwargs(timeout=timedelta(seconds=PATIENCE_S))
    return Accelerator(
        mixed_precision=precision, cpu=cpu, step_scheduler_with_optimizer=False, kwargs_handlers=[patience]
    )


def _optimizer(
    module: torch.nn.Module, config: OptimisationConfig, total_steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    inner, embeddings, rest = sorted_parameters(module)
    optimizer: torch.optim.Optimizer
    # Biases and norms are not drawn towards 0. Without decay all stay in one group, in the module's order.
    parameters: Any = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if config.weight_decay:
        parameters = [{"params": inner + embeddings}, {"params": rest, "weight_decay": 0.0}]
    if config.optimizer == "muon":
        precision = getattr(torch, product_precision("cuda" if torch_device(config).type == "cuda" else "cpu"))
        optimizer = MuonAndAdamW(module, config.learning_rate, precision, config.weight_decay)
    elif config.optimizer == "adafactor":
        optimizer = Adafactor(
            parameters,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            relative_step=False,
            scale_parameter=False,
            warmup_init=False,
        )
    else:
        optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    name = "constant_with_warmup" if config.schedule == "constant" else config.schedule
    return optimizer, get_scheduler(name, optimizer, config.warmup_steps, total_steps)


def _first_process_says(accelerator: Accelerator, value: bool) -> bool:
    """One process's clock decides for all of them."""
    if accelerator.num_processes == 1:
        return value
    return bool(broadcast(torch.tensor([value], device=accelerator.device, dtype=torch.int32)).item())
