"""The device that is measured: its clock, its memory, its name and its peak."""

import itertools
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from benchmarks.gpu.report import Report

MACHINE = "Machine"
# Dense bf16 with float32 sums, FLOP/s, from the data sheets of the SXM cards. The first name that fits counts.
PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "A100": 312e12}


def peak_of(device: torch.device) -> float | None:
    """The data sheet's bf16 FLOP/s; None for a device whose peak is unknown."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_each(work: Callable[[], object], device: torch.device, repeats: int, warm_up: int = 3) -> list[float]:
    """Seconds of each repeat, by the device's own clock where it has one: between two events in its queue."""
    for _ in range(warm_up):
        work()
    if device.type != "cuda":
        found = []
        for _ in range(repeats):
            started = time.perf_counter()
            work()
            found.append(time.perf_counter() - started)
        return found
    marks = [
        torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        for _ in range(repeats + 1)
    ]
    synchronise(device)
    marks[0].record()
    for mark in marks[1:]:
        work()
        mark.record()
    synchronise(device)
    return [before.elapsed_time(after) / 1000 for before, after in itertools.pairwise(marks)]


def describe(report: Report, device: torch.device) -> None:
    """Names of everything that figures depend on."""
    rows = {
        "processor": _processor(),
        "torch threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }
    if device.type == "cuda":
        capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
        rows |= {"device": torch.cuda.get_device_name(device), "capability": capability}
        fields = "driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem,power.limit"
        rows[fields] = nvidia_smi(fields)
    else:
        rows["device"] = "CPU"
    for what, value in rows.items():
        report.row(MACHINE, what=what, value=value)


def nvidia_smi(fields: str) -> str:
    """What the driver's tool says of the first GPU, by its names of fields; nothing is changed by asking."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader", "--id=0"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unknown: {error}"
    return asked.stdout.strip()


def _processor() -> str:
    """The processor's name as Linux tells it; what Python knows elsewhere."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} logical cores" if names else platform.processor()
