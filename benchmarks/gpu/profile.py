"""Where a training step's time goes: on the device, or in waiting for the program that feeds it.

Read from the trace that torch's profiler writes. A device that computes for a small share of the step is starved: the
program launches kernels too slowly (Python and torch take several microseconds for each), or stops to read a result.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu import synthetic
from benchmarks.gpu.device import seconds_each, synchronise
from benchmarks.gpu.report import Report
from benchmarks.gpu.steps import ACTIVE, Step, batches_of, one_positive, ours, plain
from models.methods import MethodConfig
from models.student_training import TrainingExample, collate

SHARES, KERNELS = "Where a step's time goes", "Kernels that take longest"
DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")  # the trace's categories of what the device does
# The first part of a kernel's name that fits decides what it is counted as.
KINDS = (
    ("matrix products", ("gemm", "nvjet", "cutlass", "xmma", "gemv")),
    ("attention", ("fmha", "flash", "attention")),
    ("optimizer and clipping", ("multi_tensor", "adam", "lpnorm")),
    ("softmax and loss", ("softmax", "nll_loss", "cross_entropy")),
    ("dropout", ("dropout", "bernoulli")),
    ("copies", ("memcpy", "memset", "copy")),
    ("indexing", ("index", "gather", "scatter", "embedding", "cub")),
    ("sums and norms", ("reduce",)),
    ("elementwise", ("elementwise",)),
)
STEPS_PROFILED = 3


def find_bottleneck(report: Report, device: torch.device, small: bool) -> None:
    """dss and qcrd in bfloat16: what the device does, and for how much of the time."""
    shape = "tiny" if small else "t5-base"
    dss = MethodConfig(name="dss")
    for size in (2,) if small else (64, 16):
        batch = batches_of(shape, 1, size, 6)[0]
        ways: dict[str, Callable[[Any], Step]] = {
            "dss": lambda student: ours(student, dss, "bfloat16"),
            "dss, transformers' calls": lambda student: plain(student, "bfloat16"),
            "qcrd, all repelled": lambda student: ours(student, ACTIVE, "bfloat16"),
        }
        for name, make in ways.items():
            if not report.allows(12):
                report.note(SHARES, f"Left out for lack of time: {name}, batches of {size}.")
                continue
            step = make(synthetic.student_on(device, shape))
            own = one_positive(batch) if name.startswith("dss") else batch
            _profile(report, device, f"{name}, batch {size}", lambda step=step, own=own: step(own), _tensors(own))  # type: ignore[misc]
    report.note(
        SHARES,
        "Of one step. busy: the device's work added up, over the step's time without the profiler. waits: times that "
        "the program stopped until the device had caught up. tensors: what collate takes, with the device idle.",
    )


def _profile(report: Report, device: torch.device, name: str, work: Callable[[], None], tensors: float) -> None:
    seconds = sorted(seconds_each(work, device, 5))[2]
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        for _ in range(STEPS_PROFILED):
            work()
        synchronise(device)
    events = list(_events(profiler))
    done = [event for event in events if event.get("cat") in (DEVICE_WORK if device.type == "cuda" else ("cpu_op",))]
    times: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for event in done:
        milliseconds = event["dur"] / 1000 / STEPS_PROFILED
        times[event["name"]] += milliseconds
        counts[event["name"]] += 1
        kinds[_kind(event["name"])] += milliseconds
    waits = sum(event.get("name") in ("cudaStreamSynchronize", "cudaEventSynchronize") for event in events)
    total = sum(times.values())
    shares = {f"{kind}, ms": kinds[kind] for kind in (*(kind for kind, _ in KINDS), "others")}
    figures: dict[str, Any] = {"way": name, "step, ms": 1000 * seconds, "device, ms": total}
    # A CPU's operations hold each other, so there the sum says nothing.
    figures |= {
        "busy, %": 0.1 * total / seconds if device.type == "cuda" else None,
        "kernels": len(done) // STEPS_PROFILED,
    }
    figures["tensors, ms"] = tensors
    report.row(SHARES, **figures, waits=waits / STEPS_PROFILED, **shares)
    for kernel, milliseconds in times.most_common(6):
        row: dict[str, Any] = {"way": name, "kernel": kernel[:90], "ms": milliseconds}
        report.row(KERNELS, **row, **{"share, %": 100 * milliseconds / total, "times": counts[kernel] / STEPS_PROFILED})


def _tensors(examples: list[TrainingExample]) -> float:
    """Milliseconds that it takes to put examples into tensors."""
    cpu = torch.device("cpu")
    return 1000 * sorted(seconds_each(lambda: collate(examples, range(len(examples)), 0), cpu, 5))[2]


def _events(profiler: Any) -> Iterator[dict[str, Any]]:
    """Everything in the trace that lasts."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        trace = json.loads(file.read_text(encoding="utf-8"))
    return (event for event in trace["traceEvents"] if "dur" in event)


def _kind(kernel: str) -> str:
    small = kernel.lower()
    return next((kind for kind, parts in KINDS if any(part in small for part in parts)), "others")
