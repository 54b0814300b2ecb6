"""What a training step costs: our dss and qcrd against the plain way and against transformers' Seq2SeqTrainer.

    python -m benchmarks.training                                  # the lab's T5, the lab's problems
    python -m benchmarks.training --recorded svamp_train.jsonl.gz  # real questions with up to ten real samples each
    python -m benchmarks.training --shape t5-base --precision bfloat16 --device cuda --steps 20
    python -m benchmarks.training --profile [--capped]             # where (a) and (b) spend their time; as on AVX2

    (a) dss                 label + one rationale, our trainer's step
    (b) qcrd                all voted rationales and one of the student's own; the pair chosen at every visit
    (b4) qcrd, refreshed    the same, the pair chosen at every fourth visit
    (c) qcrd, the plain way every rationale with gradients and an encoder pass of its own
    (d) Seq2SeqTrainer      dss as the published code does it: two models' calls a batch, each padded by itself,
                            batches in random order

All run in one process on the same model, examples and batch size, in turn, and the medians of their seconds per 100
questions are compared: of processor time on one thread, so that what else runs on the machine matters less, else of
the clock. Optimizer (AdamW) and clipping are part of every step; loading and evaluating are not. (a) to (c) run with
`models.cpu_linear`, as the trainer does.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from benchmarks.capped import AVX2
from models.batches import epoch_batches
from models.configs import NewStudentConfig, StudentConfig
from models.cpu_linear import faster_linears
from models.losses import token_cross_entropy
from models.methods import MethodConfig
from models.prefixes import EXPLAIN, PREDICT
from models.processor import detect_processor
from models.student import Student, pad
from models.student_loading import make_student
from models.student_training import Rationale, StudentTraining, TrainingExample, collate
from storage.datasets.lab import problems
from storage.datasets.lab_problems import solve, solve_with_slips
from storage.datasets.registry import get_dataset
from storage.recorded import read_recorded

SHAPES = {
    "lab": NewStudentConfig(),
    "t5-small": NewStudentConfig(hidden=512, layers=6, heads=8, intermediate=2048, activation="relu"),
    "t5-base": NewStudentConfig(hidden=768, layers=12, heads=12, intermediate=3072, activation="relu"),
}


class Question:
    """One question: text, answer, positive and negative rationales."""

    def __init__(self, text: str, answer: str, positives: Sequence[str], negatives: Sequence[str]) -> None:
        self.text, self.answer, self.positives, self.negatives = text, answer, positives, negatives


def lab_questions(count: int, samples: int) -> list[Question]:
    """Problems of the lab's training split, with samples that slip like the lab's teacher."""
    found, rng = [], random.Random(0)
    for problem, _ in zip(problems("train"), range(count), strict=False):
        drawn = [solve_with_slips(problem, 0.25, rng) for _ in range(samples)]
        winner = Counter(one.answer for one in drawn).most_common(1)[0][0]
        good = dict.fromkeys(one.text for one in drawn if one.answer == winner)
        bad = dict.fromkeys(one.text for one in drawn if one.answer != winner)
        # In place of the student's own: a sample for another question, as likely as a hot sample of a young student.
        bad[solve(next(problems("validation"))).text] = None
        found.append(Question(problem.question, str(solve(problem).answer), list(good), list(bad)))
    return found


def recorded_questions(path: Path, count: int) -> list[Question]:
    """Recorded SVAMP questions with all their distinct samples, voted."""
    dataset, found = get_dataset("svamp"), []
    for question in read_recorded(str(path), dataset, {}):
        parsed = [dataset.parse(sample.text, ()) for sample in question.samples]
        votes = Counter(one.answer for one in parsed if one.answer is not None)
        if not votes or question.example.label is None:
            continue
        winner = votes.most_common(1)[0][0]
        good = dict.fromkeys(one.rationale for one in parsed if one.answer == winner and one.rationale)
        bad = dict.fromkeys(one.rationale for one in parsed if one.answer not in (winner, None) and one.rationale)
        if good:
            found.append(Question(question.example.question, question.example.label, list(good), [*bad, "I see 7 ."]))
        if len(found) == count:
            break
    return found


def examples_of(student: Student, questions: Sequence[Question], *, everything: bool) -> list[TrainingExample]:
    """Tokenised; with all rationales, or with one positive alone."""
    found = []
    for one in questions:
        good, bad = (one.positives, one.negatives) if everything else (one.positives[:1], [])
        found.append(
            TrainingExample(
                student.input_ids([PREDICT + one.text])[0],
                student.input_ids([EXPLAIN + one.text])[0],
                student.target_ids([one.answer])[0],
                [Rationale(ids, 0.9) for ids in student.target_ids(good)],
                [Rationale(ids, 0.1) for ids in student.target_ids(bad)],
            )
        )
    return found


class Step:
    """One way to train: a closure over a model of its own, called with batches of indices."""

    def __init__(self, student: Student, loss: Callable[[Sequence[int]], torch.Tensor], precision: str) -> None:
        self.student, self.loss = student, loss
        self.dtype = torch.bfloat16 if precision == "bfloat16" else None
        self.optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
        student.train()

    def __call__(self, batches: Sequence[Sequence[int]]) -> None:
        with faster_linears(self.student):
            for batch in batches:
                self._step(batch)

    def _step(self, batch: Sequence[int]) -> None:
        self.backward(batch)
        self.update()

    def backward(self, batch: Sequence[int]) -> None:
        """The gradients of one batch."""
        with torch.autocast(self.student.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            loss = self.loss(batch)
        torch.autograd.backward(loss / len(batch))

    def update(self) -> None:
        """A step of the optimizer, gradients clipped."""
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def ours(student: Student, examples: list[TrainingExample], method: MethodConfig, precision: str) -> Step:
    """The trainer's own step."""
    module = StudentTraining(student, method, len(examples)).train()
    return Step(student, lambda batch: module(collate(examples, batch, student.pad_id))["loss"], precision)


def plainly(student: Student, examples: list[TrainingExample], method: MethodConfig, precision: str) -> Step:
    """The method's loss with gradients for everything and an encoder pass for each rationale."""

    def ce(inputs: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> torch.Tensor:
        ids, mask = pad(inputs, student.pad_id)
        wanted = pad(targets, -100)[0].to(student.device)
        encoded = student.encode(ids.to(student.device), mask.to(student.device))
        return token_cross_entropy(student.token_logits(encoded, wanted), wanted)

    def loss(batch: Sequence[int]) -> torch.Tensor:
        chosen = [examples[place] for place in batch]
        total = 0.5 * ce([one.predict_ids for one in chosen], [one.answer_ids or () for one in chosen]).sum()
        owners = [(row, one) for row, one in enumerate(chosen) for _ in (*one.positives, *one.negatives)]
        rationales = [r for one in chosen for r in (*one.positives, *one.negatives)]
        values = ce([one.explain_ids for _, one in owners], [r.ids for r in rationales])
        start = 0
        for one in chosen:
            good = values[start : start + len(one.positives)]
            bad = values[start + len(one.positives) : start + len(one.positives) + len(one.negatives)]
            start += len(good) + len(bad)
            l_pos = one.positives[0].score * good.min()
            l_neg = (1 - one.negatives[0].score) * (bad - method.delta).clamp(max=0).max()
            total = total + 0.5 * (l_pos - method.beta * l_neg)
        return total

    return Step(student, loss, precision)


def published(student: Student, examples: list[TrainingExample], batch_size: int, precision: str, folder: str) -> Any:
    """A Seq2SeqTrainer whose loss is dss's: one call of the model for the label and one for the rationale."""
    pad_id, device = student.pad_id, student.device

    def padded(chosen: list[TrainingExample], inputs: str, targets: list[Sequence[int]]) -> dict[str, torch.Tensor]:
        ids, mask = pad([getattr(one, inputs) for one in chosen], pad_id)
        return {"input_ids": ids, "attention_mask": mask.long(), "labels": pad(targets, -100)[0]}

    def collator(chosen: list[TrainingExample]) -> dict[str, dict[str, torch.Tensor]]:
        return {
            "pred": padded(chosen, "predict_ids", [one.answer_ids or () for one in chosen]),
            "expl": padded(chosen, "explain_ids", [one.positives[0].ids for one in chosen]),
        }

    class TaskPrefixTrainer(Seq2SeqTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, **_: Any) -> Any:
            return 0.5 * model(**inputs["pred"]).loss + 0.5 * model(**inputs["expl"]).loss

    arguments = Seq2SeqTrainingArguments(
        output_dir=folder, per_device_train_batch_size=batch_size, max_steps=1, learning_rate=1e-4, report_to=[],
        logging_strategy="no", save_strategy="no", disable_tqdm=True, remove_unused_columns=False,
        use_cpu=device.type == "cpu", bf16=precision == "bfloat16",
    )  # fmt: skip
    return TaskPrefixTrainer(model=student.model, args=arguments, train_dataset=examples, data_collator=collator)


KINDS: dict[str, tuple[str, ...]] = {
    "linear layers": ("linear", "addmm", "aten::mm", "mkldnn"),
    "attention's products": ("bmm", "scaled_dot"),
    "softmax": ("softmax",),
    "copies": ("copy", "clone", "contiguous", "cat", "index", "pad", "gather", "scatter", "fill", "zero", "empty"),
    "elementwise": (
        "mul", "add", "div", "sub", "relu", "threshold", "gelu", "tanh", "pow", "sqrt", "mean", "sum", "neg", "where",
        "lt", "gt", "eq", "ne", "clamp", "abs", "exp", "log",
    ),
}  # fmt: skip
"""Kinds of operations, by parts of the profiler's names; the first that fits."""
REST = "the rest, Python included"
UPDATE = "optimizer and clipping"


def profile(steps: dict[str, Step], examples: list[TrainingExample], options: argparse.Namespace) -> None:
    """Prints where the time of each way goes, by kind of operation."""
    batches = epoch_batches([one.length for one in examples], options.batch_size, 0)[:8]
    spent: dict[str, dict[str, float]] = {}
    for name, step in steps.items():
        step(batches[:2])
        kinds = dict.fromkeys((*KINDS, UPDATE, REST), 0.0)
        with faster_linears(step.student):
            started = time.process_time()
            for batch in batches:
                step.backward(batch)
            whole = time.process_time() - started
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
                for batch in batches:
                    step.backward(batch)
            started = time.process_time()
            for _ in batches:
                step.backward(batches[0])
            without = time.process_time() - started
            started = time.process_time()
            for _ in batches:
                step.backward(batches[0])
                step.update()
            kinds[UPDATE] = time.process_time() - started - without
        for event in found.key_averages():
            kind = next((kind for kind, words in KINDS.items() if any(word in event.key for word in words)), REST)
            if event.key.startswith(("aten::", "mkldnn", "_Linear")):
                kinds[kind] += event.self_cpu_time_total / 1e6
        kinds[REST] = max(0.0, whole - sum(kinds.values()) + kinds[UPDATE] + kinds[REST])
        spent[name] = kinds
    table = Table(box=None, pad_edge=False)
    table.add_column("share of a step's time, %")
    for name in spent:
        table.add_column(name, justify="right")
    for kind in (*KINDS, UPDATE, REST):
        table.add_row(kind, *(f"{100 * kinds[kind] / sum(kinds.values()):.0f}" for kinds in spent.values()))
    questions = sum(map(len, batches))
    table.add_row("s per 100 questions", *(f"{100 * sum(kinds.values()) / questions:.3f}" for kinds in spent.values()))
    console = Console()
    console.print(f"{options.shape} on {detect_processor().describe}, one thread")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recorded", type=Path, help="recorded SVAMP samples instead of the lab's problems")
    parser.add_argument("--samples", type=int, default=5, help="samples a question, in the lab")
    parser.add_argument("--shape", choices=SHAPES, default="lab")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dropout", type=float, default=0.0, help="0 is the lab's; T5's own is 0.1")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=16, help="steps of each way in a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of torch's, on a CPU")
    parser.add_argument("--profile", action="store_true", help="where (a) and (b) spend their time, and nothing else")
    parser.add_argument("--capped", action="store_true", help="as on a processor with AVX2 only")
    options = parser.parse_args()
    if options.capped and os.environ.get("ATEN_CPU_CAPABILITY") != AVX2["ATEN_CPU_CAPABILITY"]:
        # torch reads these when it is loaded.
        command = [sys.executable, "-m", "benchmarks.training", *sys.argv[1:]]
        sys.exit(subprocess.run(command, env=os.environ | AVX2, check=False).returncode)
    torch.set_num_threads(options.threads)
    count = options.batch_size * options.steps
    questions = (
        recorded_questions(options.recorded, count) if options.recorded else lab_questions(count, options.samples)
    )
    texts = [text for one in questions for text in (one.text, *one.positives, *one.negatives)]
    config = StudentConfig(
        model="new", new=SHAPES[options.shape], dropout=options.dropout, max_input_tokens=512, max_target_tokens=512
    )

    def student() -> Student:
        return make_student(config, texts).to(options.device)

    first = student()
    one_each, everything = (examples_of(first, questions, everything=wanted) for wanted in (False, True))
    qcrd = MethodConfig(name="qcrd")
    with TemporaryDirectory() as folder:
        steps: dict[str, Step] = {
            "(a) dss": ours(first, one_each, MethodConfig(name="dss"), options.precision),
            "(b) qcrd": ours(student(), everything, qcrd, options.precision),
            "(b4) qcrd, refreshed": ours(
                student(), everything, qcrd.model_copy(update={"refresh_every": 4}), options.precision
            ),
            "(c) qcrd, the plain way": plainly(student(), everything, qcrd, options.precision),
        }
        if options.profile:
            profile({name: steps[name] for name in ("(a) dss", "(b) qcrd")}, everything, options)
            return
        trainer = published(student(), one_each, options.batch_size, options.precision, folder)
        seconds = measured(steps, trainer, everything, options)
    show(first, questions, seconds, options)


def measured(
    steps: dict[str, Step], trainer: Any, examples: list[TrainingExample], options: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds per 100 questions, of every turn."""
    seconds: dict[str, list[float]] = {name: [] for name in (*steps, "(d) Seq2SeqTrainer")}
    for turn in range(options.turns + 1):
        batches = epoch_batches([one.length for one in examples], options.batch_size, turn)
        asked = sum(map(len, batches))

        def timed(work: Callable[[], None], name: str, asked: int = asked, warm: bool = turn > 0) -> None:
            started = _now(options)
            work()
            if warm:
                seconds[name].append(100 * (_now(options) - started) / asked)

        for name, step in steps.items():
            timed(lambda step=step, batches=batches: step(batches), name)  # type: ignore[misc]
        trainer.args.max_steps, trainer.args.seed = len(batches), turn
        timed(lambda: trainer.train(), "(d) Seq2SeqTrainer")
    return seconds


def _now(options: argparse.Namespace) -> float:
    if options.device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.process_time() if options.device == "cpu" and options.threads == 1 else time.perf_counter()


def show(
    student: Student, questions: Sequence[Question], seconds: dict[str, list[float]], options: argparse.Namespace
) -> None:
    """The table."""
    per = {name: statistics.median(values) for name, values in seconds.items()}

    def ratio(one: str, other: str) -> float:
        """The median of the ratios of each turn."""
        return statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))

    rationales = sum(len(one.positives) + len(one.negatives) for one in questions) / len(questions)
    console = Console()
    size = sum(weight.numel() for weight in student.parameters()) / 1e6
    console.print(
        f"{options.shape}, {size:.1f}M parameters, {options.precision} on {options.device} "
        f"({torch.backends.cpu.get_cpu_capability()}), dropout {options.dropout:g}; {len(questions)} questions with "
        f"{rationales:.1f} rationales each; batch {options.batch_size}; {options.turns} turns"
    )
    table = Table(box=None, pad_edge=False)
    for name in ("", "s per 100 questions", "least", "most", "times (a)"):
        table.add_column(name, justify="left" if not name else "right")
    for name, values in seconds.items():
        times = f"{ratio(name, '(a) dss'):.2f}"
        table.add_row(name, f"{per[name]:.3f}", f"{min(values):.3f}", f"{max(values):.3f}", times)
    console.print(table)
    console.print(f"(d)/(a) {ratio('(d) Seq2SeqTrainer', '(a) dss'):.2f}, goal 1.5 or more")
    console.print(f"(b)/(c) {ratio('(b) qcrd', '(c) qcrd, the plain way'):.2f}, goal 0.4 or less")
    console.print(f"(b4)/(a) {ratio('(b4) qcrd, refreshed', '(a) dss'):.2f}, goal 1.5 or less")


if __name__ == "__main__":
    main()
