"""What other ways to run the same step would give, as ratios: the leads for making it faster.

fused AdamW    one kernel for all weights
TF32           float32 products with 10 bits of mantissa
CUDA graph     the whole step recorded once and replayed, so that the program launches nothing; needs a step that
               never waits for the device and batches of one shape, so transformers' calls for dss stand in here
compiled       torch.compile of each of the model's blocks
"""

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from benchmarks.gpu import synthetic
from benchmarks.gpu.device import seconds_each, synchronise
from benchmarks.gpu.report import Report
from benchmarks.gpu.steps import ACTIVE, Precision, Step, batches_of, one_positive, ours, plain, plain_calls
from models.methods import MethodConfig
from models.student import Student
from models.student_training import TrainingExample

WHAT_IFS = "What-ifs"
COMPILED = "What-ifs: torch.compile"
GRAPHS = "What-ifs: CUDA graph"
DSS = MethodConfig(name="dss")


def measure_settings(report: Report, device: torch.device, small: bool) -> None:
    """Fused AdamW, and TF32."""
    shape = "tiny" if small else "t5-base"
    for size in (2,) if small else (64, 16):
        batches = batches_of(shape, 4, size, 8)
        for name, method in (("dss", DSS), ("qcrd, all repelled", ACTIVE)):
            own = [one_positive(batch) for batch in batches] if method is DSS else batches
            if not report.allows(10):
                report.note(WHAT_IFS, f"Left out for lack of time: {name}, batches of {size}.")
                continue
            now, fused = (
                ours(synthetic.student_on(device, shape), method, "bfloat16", fused=fused) for fused in (None, True)
            )
            _row(report, device, WHAT_IFS, f"fused AdamW: {name}, bfloat16, batch {size}", now, fused, own)
    if device.type == "cuda" and report.allows(10):
        step = ours(synthetic.student_on(device, shape), ACTIVE, "float32")
        batches = batches_of(shape, 4, 16, 8)
        _row(report, device, WHAT_IFS, "TF32: qcrd, all repelled, float32, batch 16", step, _with_tf32(step), batches)


def _with_tf32(step: Step) -> Callable[[Sequence[TrainingExample]], None]:
    def work(examples: Sequence[TrainingExample]) -> None:
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            step(examples)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = False

    return work


def measure_graph(report: Report, device: torch.device, small: bool) -> None:
    """One batch, both with fused AdamW."""
    if device.type != "cuda":
        report.note(GRAPHS, "Left out: there is no CUDA device.")
        return
    shape = "tiny" if small else "t5-base"
    for size in (2,) if small else (16, 64):
        batch = one_positive(batches_of(shape, 1, size, 9)[0])
        eager = plain(synthetic.student_on(device, shape), "bfloat16", fused=True)
        replay = _captured(synthetic.student_on(device, shape), batch)
        what = f"CUDA graph: dss, transformers' calls, bfloat16, batch {size}"
        _row(report, device, GRAPHS, what, eager, lambda _, replay=replay: replay(), [batch] * 4)  # type: ignore[misc]


def _captured(student: Student, batch: Sequence[TrainingExample]) -> Callable[[], None]:
    """A recorded step of `plain`."""
    student.train()
    calls = plain_calls(student, batch)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, weight_decay=0.0, fused=True, capturable=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        # The cast weights that autocast remembers may not outlive a recording.
        with torch.autocast("cuda", dtype=torch.bfloat16, cache_enabled=False):
            loss = 0.5 * student.model(**calls[0]).loss + 0.5 * student.model(**calls[1]).loss
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()

    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def measure_compiled(report: Report, device: torch.device, small: bool) -> None:
    """Each block compiled by itself: the twelve of a kind share one result, so that it takes seconds, not minutes."""
    if device.type != "cuda":
        report.note(COMPILED, "Left out: there is no CUDA device.")
        return
    shape = "tiny" if small else "t5-base"
    precision: Precision = "bfloat16"
    for size, name, method in [(2, "dss", DSS)] if small else [(16, "dss", DSS), (16, "qcrd, all repelled", ACTIVE)]:
        if not report.allows(45):
            report.note(COMPILED, f"Left out for lack of time: {name}, batches of {size}.")
            continue
        batches = batches_of(shape, 4, size, 10)
        own = [one_positive(batch) for batch in batches] if method is DSS else batches
        eager = ours(synthetic.student_on(device, shape), method, precision)
        student = synthetic.student_on(device, shape)
        for stack in (student.model.encoder, student.model.decoder):
            for block in stack.block:
                block.compile(dynamic=True)
        compiled = ours(student, method, precision)
        started = time.monotonic()
        for batch in own:
            compiled(batch)
        synchronise(device)
        report.note(COMPILED, f"Compiling for {name}, batches of {size}: {time.monotonic() - started:.0f} s.")
        _row(report, device, COMPILED, f"compiled: {name}, {precision}, batch {size}", eager, compiled, own)


def _row(
    report: Report,
    device: torch.device,
    table: str,
    what: str,
    now: Callable[[Sequence[TrainingExample]], None],
    then: Callable[[Sequence[TrainingExample]], None],
    batches: list[list[TrainingExample]],
) -> None:
    """Both on the same batches, in turns."""
    found: dict[str, list[float]] = {"now": [], "then": []}
    for turn in range(4):
        for name, work in (("now", now), ("then", then)):
            queue = iter(batches)
            seconds = seconds_each(lambda work=work, queue=queue: work(next(queue)), device, len(batches), 0)  # type: ignore[misc]
            if turn:  # the first warms up
                found[name].append(sum(seconds) / len(batches))
    ratio = statistics.median(a / b for a, b in zip(found["now"], found["then"], strict=True))
    figures = {"now, ms": 1000 * statistics.median(found["now"]), "then, ms": 1000 * statistics.median(found["then"])}
    report.row(table, what=what, **figures, **{"times as fast": ratio})
