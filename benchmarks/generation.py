"""Texts sampled by a student: ours (models/generation.py) against transformers' generate at several batch sizes.

    python -m benchmarks.generation                       # the lab's T5, 2,000 questions, 3 runs: 6 minutes
    python -m benchmarks.generation --shape t5-small      # T5-small's shapes, random weights
    python -m benchmarks.generation --shape llama         # a Llama of the lab's size
    python -m benchmarks.generation --student FOLDER --questions 40

Both get the same model, questions, temperature and longest output. transformers' batches are sorted by length too, and
its best batch size counts. All take turns; quoted are medians, and of written tokens per second, because two samples of
the same text are not equally long. Seconds are the process's own (CPU time), so that a neighbour counts for less.

The lab's students are trained for a minute first, so that they end their texts as trained students do. Random weights
hardly ever do: there, every text is as long as it may be, and what is gained by dropping finished rows does not show.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from itertools import islice
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table
from transformers import T5Config, T5ForConditionalGeneration

from models.configs import NewStudentConfig, StudentConfig
from models.generation import generate
from models.lab_teacher import build_tokenizer
from models.losses import IGNORED
from models.prefixes import EXPLAIN
from models.student import EncoderDecoderStudent, Student, pad
from models.student_loading import load_student, make_student
from storage.datasets.lab import SPLIT_SIZES, problems
from storage.datasets.lab_problems import solve

TEMPERATURE = 1.5  # of the paper's negatives
TRAINING_STEPS = 300
# questions, longest output in tokens
SIZES = {"lab": (2000, 128), "t5-small": (128, 48), "llama": (500, 128)}


def lab_texts() -> tuple[list[str], list[str]]:
    """Inputs and rationales of the lab's training questions."""
    drawn = list(islice(problems("train"), SPLIT_SIZES["train"]))
    return [EXPLAIN + problem.question for problem in drawn], [solve(problem).text for problem in drawn]


def trained(architecture: Literal["t5", "llama"]) -> Student:
    """A student of the lab's size that writes rationales, if often wrong ones."""
    inputs, rationales = lab_texts()
    new = NewStudentConfig(architecture=architecture)
    student = make_student(StudentConfig(model="new", new=new), inputs + rationales)
    input_ids, target_ids = student.input_ids(inputs), student.target_ids(rationales)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=0)
    order = random.Random(0)
    student.train()
    for _ in range(TRAINING_STEPS):
        batch = order.sample(range(len(inputs)), 32)
        ids, mask = pad([input_ids[index] for index in batch], student.pad_id)
        targets, _ = pad([target_ids[index] for index in batch], IGNORED)
        torch.autograd.backward(student.cross_entropy(student.encode(ids, mask), targets).mean())
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return student.eval()


def t5_small() -> Student:
    """60 million random weights in the shapes of google-t5/t5-small, which are the defaults of T5Config."""
    inputs, rationales = lab_texts()
    words = build_tokenizer(inputs + rationales, 1024, 512)
    special = {"pad_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id}
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(decoder_start_token_id=words.pad_token_id, **special))
    return EncoderDecoderStudent(model.eval(), words)


def ours(student: Student, texts: list[str], longest: int, run: int) -> int:
    """Writes all texts; returns the number of tokens written."""
    seeds = range(run * len(texts), (run + 1) * len(texts))
    written = generate(student, texts, max_new_tokens=longest, temperature=TEMPERATURE, seeds=seeds)
    return sum(one.tokens for one in written)


@torch.inference_mode()
def by_transformers(student: Student, texts: list[str], longest: int, batch_size: int) -> int:
    """The same with `generate` of transformers."""
    rows = sorted(student.input_ids(texts), key=len, reverse=True)
    left = student.kind == "decoder-only"  # where it wants its padding
    count = 0
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        ids, mask = pad([row[::-1] for row in batch] if left else batch, student.pad_id)
        if left:
            ids, mask = ids.flip(1), mask.flip(1)
        written = student.model.generate(
            input_ids=ids.to(student.device),
            attention_mask=mask.long().to(student.device),
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=0,
            top_p=1.0,
            max_new_tokens=longest,
            pad_token_id=student.pad_id,
            eos_token_id=student.eos_id,
        )[:, ids.shape[1] if left else 1 :]
        student.tokenizer.batch_decode(written, skip_special_tokens=True)
        ended = (written == student.eos_id).cumsum(1) > 0
        count += int((~ended).sum() + ended.any(1).sum())  # the end token is one more
    return count


def measured(write: Callable[[], int], device: torch.device) -> dict[str, float]:
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    tokens = write()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = clock() - start
    return {"seconds": seconds, "tokens": tokens, "speed": tokens / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SIZES, default="lab")
    parser.add_argument("--student", help="a folder, instead of a shape")
    parser.add_argument("--questions", type=int)
    parser.add_argument("--longest", type=int, help="tokens")
    parser.add_argument("--batch-sizes", default="32,64,128,256", help="transformers'")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console = Console()
    questions = arguments.questions or SIZES[arguments.shape][0]
    longest = arguments.longest or SIZES[arguments.shape][1]
    sizes = [int(size) for size in arguments.batch_sizes.split(",")]
    console.print(f"making the student ({arguments.student or arguments.shape}) ...")
    if arguments.student:
        student = load_student(arguments.student)
    elif arguments.shape == "t5-small":
        student = t5_small()
    else:
        student = trained("t5" if arguments.shape == "lab" else "llama")
    student.to("cuda" if torch.cuda.is_available() else "cpu")
    texts = lab_texts()[0][:questions]

    figures: dict[str, list[dict[str, float]]] = {}
    measured(lambda: ours(student, texts[:8], 8, 0), student.device)  # warm-up
    measured(lambda: by_transformers(student, texts[:8], 8, 8), student.device)
    for run in range(arguments.runs):
        ways: dict[str, Any] = {"qcrd": lambda run=run: ours(student, texts, longest, run)}
        for size in sizes:
            ways[f"transformers, {size} a batch"] = lambda size=size: by_transformers(student, texts, longest, size)
        for way, write in ways.items():
            figures.setdefault(way, []).append(measured(write, student.device))
            console.print(f"run {run + 1}: {way}: {figures[way][-1]['speed']:,.0f} tokens/s")

    def median(way: str, figure: str) -> float:
        return statistics.median(run[figure] for run in figures[way])

    best = max((way for way in figures if way != "qcrd"), key=lambda way: median(way, "speed"))
    ratios = [mine["speed"] / its["speed"] for mine, its in zip(figures["qcrd"], figures[best], strict=True)]
    table = Table("", "seconds", "tokens a text", "tokens/s", "ours is faster", box=None)
    for way in figures:
        table.add_row(
            way,
            f"{median(way, 'seconds'):.1f}",
            f"{median(way, 'tokens') / len(texts):.1f}",
            f"{median(way, 'speed'):,.0f}",
            "" if way == "qcrd" else f"{median('qcrd', 'speed') / median(way, 'speed'):.2f} times",
        )
    console.print(table)
    console.print(
        f"{len(texts)} questions, at most {longest} tokens, {arguments.threads} thread(s), {student.device}: "
        f"{statistics.median(ratios):.2f} times the best of transformers (median of {arguments.runs} runs)"
    )


if __name__ == "__main__":
    main()
