"""What a training step takes: dss and qcrd as the trainer does them, beside dss with transformers' own calls.

A step is all of it: examples put into tensors, moved, forward and backward pass, clipping, AdamW. Ways that are
compared take turns on the same batches, each with a model of its own.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from benchmarks.gpu import synthetic
from benchmarks.gpu.device import nvidia_smi, peak_of, seconds_each
from benchmarks.gpu.flops import step_flops
from benchmarks.gpu.report import Figure, Report
from models.batches import epoch_batches
from models.losses import IGNORED
from models.methods import MethodConfig
from models.student import Student, pad
from models.student_training import Rationale, StudentTraining, TrainingExample, collate

CEILINGS, STEPS = "What the device can do", "Training steps"
LARGEST_BATCH = 64
Precision = Literal["float32", "bfloat16"]
IDLE, ACTIVE = MethodConfig(), MethodConfig(delta=100.0)
"""qcrd at the start of training, when no negative is below the margin, and with every chosen negative repelled."""


class Step:
    """One way to train: a model, its optimizer and its loss.

    Args:
        student: what is trained, on its device.
        loss: the summed loss of examples.
        precision: float32, or bfloat16 for autocast.
        fused: AdamW as one kernel; None leaves the choice to torch, as the trainer does.
    """

    def __init__(
        self,
        student: Student,
        loss: Callable[[Sequence[TrainingExample]], torch.Tensor],
        precision: Precision,
        fused: bool | None = None,
    ) -> None:
        self.student, self.loss, self.precision = student, loss, precision
        self.optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, weight_decay=0.0, fused=fused)

    def __call__(self, examples: Sequence[TrainingExample]) -> None:
        half = self.precision == "bfloat16"
        with torch.autocast(self.student.device.type, dtype=torch.bfloat16, enabled=half):
            loss = self.loss(examples)
        torch.autograd.backward(loss / len(examples))
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def ours(student: Student, method: MethodConfig, precision: Precision, fused: bool | None = None) -> Step:
    """The trainer's step. dss gets one positive of each example, as its configuration has it."""

    module = StudentTraining(student, method, LARGEST_BATCH).train()

    def loss(examples: Sequence[TrainingExample]) -> torch.Tensor:
        sums: dict[str, torch.Tensor] = module(collate(examples, range(len(examples)), student.pad_id))
        return sums["loss"]

    return Step(student, loss, precision, fused)


def plain(student: Student, precision: Precision, fused: bool | None = None) -> Step:
    """dss as the published code has it: one call of the model for the answers and one for the rationales."""
    student.train()

    def loss(examples: Sequence[TrainingExample]) -> torch.Tensor:
        total = torch.zeros((), device=student.device)
        for call in plain_calls(student, examples):
            total = total + 0.5 * student.model(**call).loss
        return total * len(examples)  # transformers' loss is a mean

    return Step(student, loss, precision, fused)


def plain_calls(student: Student, examples: Sequence[TrainingExample]) -> list[dict[str, torch.Tensor]]:
    """The two calls' arguments, on the student's device."""
    tasks = (
        ([one.predict_ids for one in examples], [one.answer_ids or () for one in examples]),
        ([one.explain_ids for one in examples], [one.positives[0].ids for one in examples]),
    )
    calls = []
    for inputs, targets in tasks:
        ids, mask = pad(inputs, student.pad_id)
        call = {"input_ids": ids, "attention_mask": mask.long(), "labels": pad(targets, IGNORED)[0]}
        calls.append({name: value.to(student.device, non_blocking=True) for name, value in call.items()})
    return calls


def one_positive(examples: Sequence[TrainingExample]) -> list[TrainingExample]:
    """What dss is trained on."""
    return [
        TrainingExample(one.predict_ids, one.explain_ids, one.answer_ids, list[Rationale](one.positives[:1]))
        for one in examples
    ]


def batches_of(shape: str, count: int, size: int, seed: int) -> list[list[TrainingExample]]:
    """`count` whole batches, grouped by length as the trainer's are."""
    examples = synthetic.make_examples(count * size, seed, vocabulary=synthetic.original(shape).model.config.vocab_size)
    return [[examples[place] for place in places] for places in epoch_batches([e.length for e in examples], size, seed)]


def tokens_of(examples: Sequence[TrainingExample]) -> int:
    """Real tokens that a step reads and predicts: both inputs, the answer and every rationale."""
    rationales = sum(len(r.ids) for one in examples for r in (*one.positives, *one.negatives))
    return rationales + sum(len(one.predict_ids) + len(one.explain_ids) + len(one.answer_ids or ()) for one in examples)


# ---- the sections ----


def measure_ceilings(report: Report, device: torch.device, small: bool) -> None:
    """The largest rates to be had: products of square matrices, and copies."""
    size, repeats = (256, 3) if small else (8192, 20)
    for name, dtype, times in (("bfloat16", torch.bfloat16, repeats), ("float32", torch.float32, max(3, repeats // 4))):
        one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        seconds = statistics.median(seconds_each(lambda one=one, other=other: one @ other, device, times))  # type: ignore[misc]
        report.row(CEILINGS, what=f"{name} product, {size}^3", **{"TFLOP/s": 2e-12 * size**3 / seconds})
    if device.type == "cuda":
        report.note(CEILINGS, f"SM clock just after: {nvidia_smi('clocks.sm')}.")
    source = torch.randn(2**20 if small else 2**30, device=device)
    target = torch.empty_like(source)
    seconds = statistics.median(seconds_each(lambda: target.copy_(source), device, repeats))
    report.row(CEILINGS, what="copy, read and written", **{"TB/s": 2e-12 * source.nbytes / seconds})
    if peak := peak_of(device):
        report.note(CEILINGS, f"Data sheet: {peak / 1e12:.0f} TFLOP/s in dense bfloat16.")


@dataclass(frozen=True)
class Setting:
    """The conditions of a comparison."""

    shape: str
    precision: Precision
    batch_size: int


def settings(small: bool) -> list[Setting]:
    """The most important first: time may end before all are measured."""
    if small:
        return [Setting("tiny", "bfloat16", 2), Setting("tiny", "float32", 2)]
    return [
        Setting("t5-base", "bfloat16", 64),
        Setting("t5-base", "bfloat16", 16),
        Setting("t5-base", "float32", 64),
        Setting("t5-base", "float32", 16),
        Setting("t5-base v1.1", "bfloat16", 64),
    ]


def measure_steps(report: Report, device: torch.device, small: bool) -> None:
    """Every setting, in turns."""
    for setting in settings(small):
        if not report.allows(25):
            report.note(STEPS, f"Left out for lack of time: {setting}.")
            continue
        _compare(report, device, setting, turns=2 if small else 4)
    report.note(
        STEPS,
        "ms: median of a step, and its 10th to 90th percentile. tokens: all that a step reads and predicts. MFU: "
        "operations of real tokens (benchmarks/gpu/flops.py) over the data sheet's bfloat16 rate. memory: the most "
        "allocated at once, model and optimizer included. times dss: the median of the turns' ratios.",
    )


def _compare(report: Report, device: torch.device, setting: Setting, turns: int) -> None:
    precision = setting.precision
    batches = batches_of(setting.shape, 4, setting.batch_size, 5)
    single = [one_positive(batch) for batch in batches]
    ways: dict[str, tuple[Callable[[Student], Step], list[list[TrainingExample]]]] = {
        "dss": (lambda student: ours(student, MethodConfig(name="dss"), precision), single),
        "dss, transformers' calls": (lambda student: plain(student, precision), single),
        "qcrd, all repelled": (lambda student: ours(student, ACTIVE, precision), batches),
        "qcrd, none repelled": (lambda student: ours(student, IDLE, precision), batches),
    }
    steps: dict[str, Step] = {}
    memory: dict[str, float | None] = {}
    for name, (make, own) in ways.items():
        before = _memory_now(device)
        steps[name] = make(synthetic.student_on(device, setting.shape))
        for batch in own:
            steps[name](batch)  # warms up, and shows the memory
        memory[name] = _memory_peak(device, before)
    seconds: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, (_, own) in ways.items():
            queue = iter(own)
            work = steps[name]
            seconds[name].append(seconds_each(lambda queue=queue, work=work: work(next(queue)), device, len(own), 0))  # type: ignore[misc]
    config = synthetic.original(setting.shape).model.config
    for name, (_, own) in ways.items():
        flat = sorted(value for turn in seconds[name] for value in turn)
        per_epoch = statistics.median(sum(turn) for turn in seconds[name])  # all batches once
        # The margin spares the last way an unknown share of the formula's operations.
        counted = name != "qcrd, none repelled"
        rate = sum(step_flops(config, batch) for batch in own) / per_epoch if counted else None
        peak = peak_of(device) if precision == "bfloat16" else None
        ratios = [sum(one) / sum(base) for one, base in zip(seconds[name], seconds["dss"], strict=True)]
        figures: dict[str, Figure] = {
            "shape": setting.shape,
            "precision": precision,
            "batch": setting.batch_size,
            "way": name,
            "ms": 1000 * statistics.median(flat),
            "10-90 %": f"{1000 * flat[len(flat) // 10]:.1f}-{1000 * flat[-1 - len(flat) // 10]:.1f}",
            "examples/s": sum(map(len, own)) / per_epoch,
            "tokens/s": sum(map(tokens_of, own)) / per_epoch,
            "TFLOP/s": rate / 1e12 if rate else None,
            "MFU, %": 100 * rate / peak if rate and peak else None,
            "memory, GB": memory[name],
            "times dss": statistics.median(ratios),
        }
        report.row(STEPS, **figures)


def _memory_now(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _memory_peak(device: torch.device, before: int) -> float | None:
    """GB above what was allocated before."""
    return (torch.cuda.max_memory_allocated(device) - before) / 1e9 if device.type == "cuda" else None
