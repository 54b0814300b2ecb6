"""Whether the device computes what it should: losses, gradients, and a training that goes on after a stop.

The reference is float64 on the CPU: a CPU's own float32 was once further from it than the GPU's. On the device float32
is exact float32 (TF32 off); bfloat16 is autocast over float32 weights, as the trainer has it.
"""

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu import synthetic
from benchmarks.gpu.report import Report
from models import discriminator_training, student_training
from models.checkpoints import latest
from models.configs import DiscriminatorConfig, DiscriminatorLoss, OptimisationConfig
from models.discriminator import make_discriminator
from models.discriminator_training import DiscriminatorTraining, JudgedExample
from models.folders import MODEL
from models.methods import MethodConfig
from models.student_loading import load_student
from models.student_training import StudentTraining, TrainingExample
from models.trainer import RoundPlan, Trained, train

LOSSES, RESUME = "Losses and gradients against float64", "Going on after a stop"
# Differences divided by the reference's value, or by the norm of its gradient.
FLOAT32_LOSS, FLOAT32_GRADIENT, FLOAT32_WORST = 1e-5, 1e-4, 1e-2
BFLOAT16_LOSS, BFLOAT16_GRADIENT = 2e-2, 1e-1
RESUMED = 1e-4  # where sums are made in whatever order the device likes
# With random weights a rationale costs about log(vocabulary) nats a token; a margin above that repels every negative.
DELTA = 100.0


@dataclass(frozen=True)
class Outcome:
    """What one pass computed.

    Attributes:
        figures: of the forward pass, by name.
        gradients: of every weight, on the CPU.
    """

    figures: dict[str, float]
    gradients: dict[str, torch.Tensor]


def outcome(module: Any, batch: Any, device: torch.device, dtype: torch.dtype | None = None) -> Outcome:
    """One forward and backward pass, with autocast where there is a dtype."""
    module.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        sums = module(batch)
    torch.autograd.backward(sums["loss"])
    zero = torch.zeros(())
    return Outcome(
        {name: float(value.detach()) for name, value in sums.items()},
        {
            name: (zero if weight.grad is None else weight.grad).detach().float().cpu()
            for name, weight in module.named_parameters()
        },
    )


def check_losses(report: Report, device: torch.device, small: bool) -> None:
    """Students of both kinds under several methods, and the discriminator under its three losses."""
    for name, module, batch, chooses in _modules(small):
        exact = outcome(module.double(), _in_float64(batch), torch.device("cpu"))
        module.float().to(device)  # the weights are what they were: float64 holds every float32
        _compare(report, f"{name}, float32", exact, outcome(module, batch, device), exact=True)
        half = outcome(module, batch, device, torch.bfloat16)
        # Random weights make what is compared about equal, so bfloat16 chooses otherwise here and there, which moves
        # gradients and hardly the loss.
        _compare(report, f"{name}, bfloat16", exact, half, exact=False, gradients=not chooses)
        module.cpu()


def _modules(small: bool) -> Iterator[tuple[str, Any, Any, bool]]:
    """Name, module on the CPU, batch, and whether it chooses by comparing numbers: rationales by their likelihood, the
    discriminator the largest of all tokens' outputs."""
    vocabulary, count = (512, 3) if small else (4096, 4)
    everything = synthetic.make_examples(count, 1, vocabulary=vocabulary)
    one_each = synthetic.make_examples(count, 2, positives=1, negatives=0, vocabulary=vocabulary)
    unanswered = synthetic.make_examples(count, 3, vocabulary=vocabulary, answers=False)
    methods: list[tuple[str, MethodConfig, Sequence[TrainingExample]]] = [
        ("dss", MethodConfig(name="dss"), one_each),
        ("mi", MethodConfig(name="mi"), one_each),
        ("qcrd", MethodConfig(delta=DELTA), everything),
        ("qcrd without answers", MethodConfig(delta=DELTA), unanswered),
        ("qcrd, all rationales", MethodConfig(delta=DELTA, scheme="mean"), everything),
        ("qcrd, drawn rationales", MethodConfig(delta=DELTA, scheme="sample"), everything),
    ]
    for shape in ("tiny", "tiny llama") if small else ("t5-small", "small llama"):
        student = synthetic.make_student(shape, vocabulary, dropout=0.0)
        for name, method, examples in methods if "llama" not in shape else methods[:3]:
            module = StudentTraining(student, method, count).train()
            questions = student_training.collate(examples, range(count), student.pad_id)
            yield f"{shape}, {name}", module, questions, method.name == "qcrd" and method.scheme == "min-max"
    config = DiscriminatorConfig(dropout=0.0)
    judge = make_discriminator(config, synthetic.make_student("tiny" if small else "t5-small", vocabulary, dropout=0.0))
    pairs = [
        JudgedExample(
            *([[*example.explain_ids, *r.ids] for r in own] for own in (example.positives, example.negatives))
        )
        for example in everything
    ]
    kinds: tuple[DiscriminatorLoss, ...] = ("ratio", "infonce", "bce")
    for kind in kinds:
        judged = discriminator_training.collate(pairs, range(count), judge.pad_id)
        yield f"discriminator, {kind}", DiscriminatorTraining(judge, kind).train(), judged, True


def _in_float64(batch: Any) -> Any:
    """A batch whose scores and weights are float64."""
    return type(batch)(**{name: t.double() if t.is_floating_point() else t for name, t in vars(batch).items()})


def _compare(
    report: Report, what: str, expected: Outcome, found: Outcome, *, exact: bool, gradients: bool = True
) -> None:
    loss = max(_relative(found.figures[name], value) for name, value in expected.figures.items())
    report.check(LOSSES, f"{what}: loss", loss, FLOAT32_LOSS if exact else BFLOAT16_LOSS)
    if not gradients:
        return
    norm = _norm(expected.gradients.values())
    differences = {name: found.gradients[name] - value for name, value in expected.gradients.items()}
    limit = FLOAT32_GRADIENT if exact else BFLOAT16_GRADIENT
    report.check(LOSSES, f"{what}: gradient", _norm(differences.values()) / norm, limit)
    if exact:  # a weight whose gradient hardly counts is measured by the whole gradient
        worst = max(
            float(difference.norm() / max(float(expected.gradients[name].norm()), 1e-4 * norm))
            for name, difference in differences.items()
        )
        report.check(LOSSES, f"{what}: worst weight's gradient", worst, FLOAT32_WORST)


def _relative(found: float, expected: float) -> float:
    return abs(found - expected) / max(abs(expected), 1e-3)


def _norm(gradients: Iterable[torch.Tensor]) -> float:
    return math.sqrt(sum(float((gradient.double() ** 2).sum()) for gradient in gradients))


# ---- going on after a stop ----


class Stopped(Exception):
    """Ends a training in the middle of a round, as a lost machine would."""


def check_resume(report: Report, device: torch.device, small: bool) -> None:
    """A round that stops after a checkpoint and goes on from it, beside two that run through."""
    settings = OptimisationConfig(
        batch_size=8, learning_rate=1e-3, log_every=2, device="cpu" if device.type == "cpu" else "auto"
    )
    with tempfile.TemporaryDirectory() as folder:
        rounds = _Rounds(Path(folder), "tiny" if small else "small")
        for deterministic in (False, True):
            how = "deterministic kernels" if deterministic else "the device's usual kernels"
            with _deterministic(deterministic):
                once, again = rounds.run(f"once {how}", settings), rounds.run(f"again {how}", settings)
                resumed = rounds.run(f"resumed {how}", settings, stop_at=6)
            report.check(RESUME, f"{how}: a second run", _apart(once, again), 0.0 if deterministic else RESUMED)
            report.check(
                RESUME, f"{how}: stopped and resumed", _apart(once, resumed), 0.0 if deterministic else RESUMED
            )
    report.note(RESUME, "The norm of the difference of all weights over that of the weights; 0 is equal bit for bit.")


class _Rounds:
    """Rounds of eight steps of qcrd that begin with the same student."""

    def __init__(self, folder: Path, shape: str) -> None:
        self._folder, vocabulary = folder, 512
        self._examples = synthetic.make_examples(64, 4, vocabulary=vocabulary)
        self._start = folder / "start"
        student = synthetic.make_student(shape, vocabulary)
        student.save(self._start / MODEL)
        self._pad_id = student.pad_id

    def run(self, name: str, settings: OptimisationConfig, stop_at: int | None = None) -> dict[str, torch.Tensor]:
        """The weights after the round; with `stop_at`, it stops at that step and goes on from the checkpoint before."""
        folder = self._folder / name
        if stop_at is not None:
            with suppress(Stopped):  # checkpoints at every look at the loss
                self._train(folder, settings.model_copy(update={"checkpoint_every_s": 1e-6}), stop_at)
            found = latest(folder)
            if found is None or not found.name.endswith(f"{stop_at - settings.log_every}"):
                raise RuntimeError(f"stopped at step {stop_at}, but the newest checkpoint is {found}")
        trained = self._train(folder, settings, None)
        return dict(load_student(trained.checkpoint / MODEL).model.named_parameters())

    def _train(self, folder: Path, settings: OptimisationConfig, stop_at: int | None) -> Trained:
        def look(line: Mapping[str, float]) -> None:
            if line["step_of_round"] == stop_at:
                raise Stopped

        return train(
            lambda model: StudentTraining(load_student(model), MethodConfig(delta=DELTA), len(self._examples)),
            lambda places: student_training.collate(self._examples, places, self._pad_id),
            RoundPlan([list(places) for places in [range(first, first + 8) for first in range(0, 64, 8)]], 0, 8),
            settings,
            folder,
            self._start,
            look,
        )


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """Kernels whose sums are always made in the same order; fused attention's gradients are not."""
    torch.use_deterministic_algorithms(wanted, warn_only=True)
    try:
        with sdpa_kernel([SDPBackend.MATH]) if wanted else nullcontext():
            yield
    finally:
        torch.use_deterministic_algorithms(False)


def _apart(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    differences = [(value - other[name]).detach() for name, value in one.items()]
    return _norm(differences) / _norm([value.detach() for value in one.values()])
