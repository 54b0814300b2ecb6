"""What the models do on a GPU: whether they compute the same as on a CPU, and how fast.

    python -m benchmarks.gpu --out FOLDER                    # everything, under six minutes
    python -m benchmarks.gpu --out FOLDER --sections steps   # one section; the others' results are kept
    python -m benchmarks.gpu --out FOLDER --small            # tiny sizes, on a CPU too: shows that it runs

Needs torch, transformers, accelerate, pydantic and the folders models/ and benchmarks/, nothing else of this project
and no network (docs/gpu.md). Ends with 1 where a check failed or a section broke off.
"""

import argparse
import gc
import math
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

# cuBLAS reads it when it starts; without it its products are not the same from run to run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched, so nothing waits for a network

import torch

from benchmarks.gpu.correctness import check_losses, check_resume
from benchmarks.gpu.device import describe, synchronise
from benchmarks.gpu.generation import measure_generation
from benchmarks.gpu.profile import find_bottleneck
from benchmarks.gpu.report import Report
from benchmarks.gpu.steps import measure_ceilings, measure_steps
from benchmarks.gpu.whatifs import measure_compiled, measure_graph, measure_settings

Section = Callable[[Report, torch.device, bool], None]
"""Told where results go, the device, and whether sizes are to be small. A new measurement is a new function below."""
# Name, seconds it needs to be worth starting, function. In the order of what matters most.
SECTIONS: dict[str, tuple[float, Section]] = {
    "machine": (0, lambda report, device, _: describe(report, device)),
    "losses": (20, check_losses),
    "resume": (20, check_resume),
    "ceilings": (5, measure_ceilings),
    "steps": (30, measure_steps),
    "profile": (15, find_bottleneck),
    "generation": (20, measure_generation),
    "settings": (15, measure_settings),
    "graph": (15, measure_graph),
    "compile": (45, measure_compiled),
}
TIMES = "Sections"


def main() -> int:
    """Runs the sections that were asked for; the process's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for results.json and results.md")
    parser.add_argument("--seconds", type=float, default=300, help="what would not end by then is left out")
    parser.add_argument("--sections", help=f"some of {', '.join(SECTIONS)}, with commas; all if left out")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="tiny sizes")
    options = parser.parse_args()
    chosen = options.sections.split(",") if options.sections else list(SECTIONS)
    if unknown := [name for name in chosen if name not in SECTIONS]:
        parser.error(f"unknown section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    device = torch.device(options.device)
    if device.type == "cpu" and not options.small:
        parser.error("there is no CUDA device, and on a CPU these sizes would take hours; add --small")
    torch.backends.cuda.matmul.allow_tf32 = False
    if options.small:
        torch.set_num_threads(1)  # several are slower at tiny sizes, and much slower beside other programs
    report, broken = Report(options.out, math.inf if options.small else options.seconds), 0
    for name in chosen:
        needed, section = SECTIONS[name]
        if not report.allows(needed):
            report.note(TIMES, f"{name} left out for lack of time.")
            continue
        started = report.elapsed
        try:
            section(report, device, options.small)
            synchronise(device)
        except Exception as error:  # the other sections' figures are worth having; the exit code tells
            traceback.print_exc()
            broken += 1
            report.note(TIMES, f"{name} broke off: {type(error).__name__}: {str(error)[:300]}")
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        report.row(TIMES, section=name, seconds=report.elapsed - started, elapsed=report.elapsed)
    report.note(TIMES, f"{report.failed} checks failed, {broken} sections broke off.")
    return 1 if report.failed or broken else 0


if __name__ == "__main__":
    sys.exit(main())
