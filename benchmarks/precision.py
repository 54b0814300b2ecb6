"""bfloat16 against float32, on what this machine's processor computes and on less: what `models.precision` chooses by.

    python -m benchmarks.precision                       # on all that it has, and capped to AVX-512 and to AVX2
    python -m benchmarks.precision --only AVX2 --shapes lab

For each cap a process of its own does every piece of work in both precisions, in turn, on one thread:

    product     512 questions' worth of a linear layer of a t5-small: (2048, 512) times (512, 512)
    muon        one orthogonalisation of a (128, 384) matrix, the lab teacher's largest
    student     a training step of dss and of qcrd: float32, or bfloat16 by autocast over float32 weights

Ratios are medians over the turns; above 1, bfloat16 is the slower one. Times are of the processor, not of the clock:
other processes disturb those less.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

from rich.console import Console
from rich.table import Table

from benchmarks.capped import AVX2
from models.processor import detect_processor

CAPS: dict[str, dict[str, str]] = {
    "all": {},
    "AVX-512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "AVX2": AVX2,
}
PRECISIONS = ("float32", "bfloat16")
BATCH = {"lab": 16, "t5-small": 8}
ONCE = "--once"


def work(shapes: list[str]) -> dict[str, dict[str, Callable[[], object]]]:
    """What is timed: name -> precision -> a call."""
    import torch

    from benchmarks.training import SHAPES, examples_of, lab_questions, ours
    from models.batches import epoch_batches
    from models.configs import StudentConfig
    from models.cpu_linear import faster_linears
    from models.methods import MethodConfig
    from models.muon import orthogonalised
    from models.student_loading import make_student

    def product(linear: torch.nn.Linear, inputs: torch.Tensor) -> None:
        with torch.no_grad(), faster_linears(linear):
            linear(inputs)

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    generator = torch.Generator().manual_seed(0)
    rows, weight, matrix = (torch.randn(*size, generator=generator) for size in ((2048, 512), (512, 512), (128, 384)))
    found: dict[str, dict[str, Callable[[], object]]] = {"product": {}, "muon": {}}
    for name, dtype in dtypes.items():
        inputs, linear = rows.to(dtype), torch.nn.Linear(512, 512, bias=False, dtype=dtype)
        linear.weight.data.copy_(weight)

        found["product"][name] = partial(product, linear, inputs)
        found["muon"][name] = partial(orthogonalised, matrix, dtype)
    for shape in shapes:
        size = BATCH[shape]
        questions = lab_questions(2 * size, 5)
        texts = [text for one in questions for text in (one.text, *one.positives, *one.negatives)]
        config = StudentConfig(model="new", new=SHAPES[shape], max_input_tokens=512, max_target_tokens=512)
        for method in ("dss", "qcrd"):
            calls: dict[str, Callable[[], object]] = {}
            for name in PRECISIONS:
                student = make_student(config, texts)
                examples = examples_of(student, questions, everything=method == "qcrd")
                step = ours(student, examples, MethodConfig(name=method), name)
                batches = epoch_batches([one.length for one in examples], size, 0)
                calls[name] = partial(step, batches)
            found[f"{shape}'s student, {method}"] = calls
    return found


def once(shapes: list[str], turns: int) -> None:
    """Times everything in this process, and prints the seconds of every turn as JSON."""
    import torch

    torch.set_num_threads(1)
    seconds: dict[str, dict[str, list[float]]] = {}
    for what, calls in work(shapes).items():
        seconds[what] = {name: [] for name in calls}
        for turn in range(turns + 1):
            for name, call in calls.items():
                started = time.process_time()
                call()
                if turn:  # the first one warms up
                    seconds[what][name].append(time.process_time() - started)
    print(json.dumps({"processor": detect_processor().describe, "seconds": seconds}))


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CAPS, help="one cap")
    parser.add_argument("--shapes", nargs="*", choices=BATCH, default=list(BATCH), help="of students")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument(ONCE, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        once(options.shapes, options.turns)
        return
    table = Table("processor", "work", *(f"{name}, ms" for name in PRECISIONS), "bfloat16 / float32", box=None)
    for cap in [options.only] if options.only else CAPS:
        command = [sys.executable, "-m", "benchmarks.precision", ONCE, "--turns", str(options.turns)]
        done = subprocess.run(
            [*command, "--shapes", *options.shapes], env=os.environ | CAPS[cap], stdout=subprocess.PIPE, check=True
        )
        told = json.loads(done.stdout)
        for what, seconds in told["seconds"].items():
            plain, half = (seconds[name] for name in PRECISIONS)
            ratio = statistics.median(b / a for a, b in zip(plain, half, strict=True))
            times = [f"{1000 * statistics.median(values):.2f}" for values in (plain, half)]
            table.add_row(told["processor"], what, *times, f"{ratio:.2f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
