"""What a training holds in memory at most: students and discriminators with long texts.

    python -m benchmarks.memory                      # as the trainer does it: as many examples at once as fit
    python -m benchmarks.memory --at-once 4 2        # with so many at once; 16 is the whole batch, mind your memory
    python -m benchmarks.memory --case "t5-small, qcrd" --dropout 0

Every row is a process of its own that makes a model with random weights and trains it for two steps of 16 questions
(AdamW, float32, one thread of a CPU) with `models.trainer`. "peak" is the most memory that the process has ever held
(ru_maxrss): Python, torch, weights, gradients, optimizer, and the writing of the checkpoint. "estimate" is what
`models.memory` expects of the examples that are computed at once.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import T5Config, T5EncoderModel, T5ForConditionalGeneration

from models.configs import NewStudentConfig, OptimisationConfig
from models.discriminator import Discriminator
from models.discriminator_training import DiscriminatorTraining, JudgedExample
from models.discriminator_training import collate as collate_judged
from models.folders import MODEL, read_steps
from models.memory import fitting, room
from models.methods import MethodConfig
from models.new_student import new_tokenizer
from models.student import EncoderDecoderStudent
from models.student_training import Rationale, StudentTraining, TrainingExample
from models.student_training import collate as collate_student
from models.trainer import RoundPlan, train

QUESTIONS, STEPS, ANSWER_TOKENS = 16, 2, 3
T5_SMALL = {"vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}
LAB = {"vocab_size": 2000, "d_model": 128, "d_kv": 32, "d_ff": 384, "num_layers": 2, "num_heads": 4,
       "feed_forward_proj": "gated-gelu"}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A model's sizes, what it is trained for ("discriminator", or a student's method), and its texts' tokens."""

    sizes: dict[str, Any]
    method: Any
    question: int
    rationale: int
    candidates: int = 8
    dropout: float = 0.1


CASES = {
    "t5-small, qcrd": Case(T5_SMALL, "qcrd", 384, 384),
    "t5-small, qcrd, questions of 100 tokens": Case(T5_SMALL, "qcrd", 100, 384),
    "t5-small, dss": Case(T5_SMALL, "dss", 384, 384),
    "t5-small, mi": Case(T5_SMALL, "mi", 384, 384),
    "t5-small's encoder, discriminator": Case(T5_SMALL, "discriminator", 384, 384),
    "the lab's T5, qcrd": Case(LAB, "qcrd", 100, 384, 20, 0.0),
    "the lab's T5, discriminator": Case(LAB, "discriminator", 100, 384, 20, 0.0),  # recorded SVAMP has up to 10 + 10
}
WIDTH = max(map(len, CASES))


def trainable(case: Case) -> tuple[Any, Any]:
    """A module, and what makes its batches."""
    rng = random.Random(0)
    words = new_tokenizer(NewStudentConfig(), None, ["a b c"], 2048)
    config = T5Config(decoder_start_token_id=0, dropout_rate=case.dropout, **case.sizes)

    def ids(tokens: int) -> list[int]:
        return [rng.randrange(3, config.vocab_size) for _ in range(tokens)]

    good = 1 if case.method in ("dss", "mi") else case.candidates // 2
    bad = 0 if case.method in ("dss", "mi") else case.candidates - good
    if case.method == "discriminator":
        judge = Discriminator(T5EncoderModel(config), words, config.d_model, 2048)
        pairs = case.question + case.rationale
        judged = [
            JudgedExample([ids(pairs) for _ in range(good)], [ids(pairs) for _ in range(bad)]) for _ in range(QUESTIONS)
        ]
        return DiscriminatorTraining(judge, "bce"), lambda index: collate_judged(judged, index, 0)
    student = EncoderDecoderStudent(T5ForConditionalGeneration(config), words, 2048, 2048)
    examples = [
        TrainingExample(
            ids(case.question),
            ids(case.question),
            ids(ANSWER_TOKENS),
            [Rationale(ids(case.rationale), 0.9) for _ in range(good)],
            [Rationale(ids(case.rationale), 0.1) for _ in range(bad)],
        )
        for _ in range(QUESTIONS)
    ]
    method = MethodConfig(name=case.method, delta=50.0)  # every chosen negative repels
    return StudentTraining(student, method, QUESTIONS), lambda index: collate_student(examples, index, 0)


def measured(name: str, at_once: int | None, dropout: float | None) -> dict[str, Any]:
    """Trains in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    case = CASES[name] if dropout is None else replace(CASES[name], dropout=dropout)
    module, collate = trainable(case)
    everything = list(range(QUESTIONS))
    needed = module.step_bytes(collate(everything))
    size = at_once or fitting(needed, room(torch.device("cpu")), QUESTIONS)
    config = OptimisationConfig(micro_batch_size=at_once, device="cpu", precision="float32", log_every=1)
    with TemporaryDirectory() as folder:
        train(
            load=lambda _: module,
            collate=collate,
            plan=RoundPlan([everything] * STEPS, 0, STEPS),
            config=config,
            folder=Path(folder) / "round",
            start=Path(folder) / MODEL,
        )
        seconds = read_steps(Path(folder) / "round")[-1]["seconds"]
    return {
        "size": size,
        "estimate": needed / QUESTIONS * size,
        "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "seconds": seconds,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, nargs="+", default=list(CASES))
    parser.add_argument("--at-once", type=int, nargs="*", default=[], help="examples; the trainer's choice if left out")
    parser.add_argument("--dropout", type=float, help="instead of each case's own")
    parser.add_argument("--here", action="store_true", help="one case, in this process; prints JSON")
    options = parser.parse_args(arguments)
    if options.here:
        print(json.dumps(measured(options.case[0], next(iter(options.at_once), None), options.dropout)))
        return
    print(f"{'':{WIDTH}}  at once  estimate, GB  peak, GB  s a step")
    for name in options.case:
        for at_once in options.at_once or [None]:
            command = [sys.executable, "-m", "benchmarks.memory", "--here", "--case", name]
            command += ["--at-once", str(at_once)] if at_once else []
            command += ["--dropout", str(options.dropout)] if options.dropout is not None else []
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{name:{WIDTH}}  {found['size']:7}  {found['estimate'] / 1e9:12.2f}  {found['peak'] / 1e9:8.2f}  "
                f"{found['seconds']:8.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
