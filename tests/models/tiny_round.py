"""A round of a very small student's training, for tests: in this process, in one that is killed, in several at once.

torchrun --standalone --nproc_per_node 2 -m tests.models.tiny_round PLANS.json
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from safetensors.torch import load_file

import models
from models.batches import epoch_batches
from models.configs import NewStudentConfig, OptimisationConfig, StudentConfig
from models.folders import MODEL, OPTIMIZER, STATE, whole_folder
from models.methods import MethodConfig
from models.prefixes import EXPLAIN, PREDICT
from models.student import Student
from models.student_loading import load_student, make_student
from models.student_training import Rationale, StudentTraining, TrainingExample, collate
from models.trainer import RoundPlan, Trained, train

QUESTIONS = [
    f"{name} has {first} {thing} and {second} more. How many {thing}?"
    for name, first, second, thing in (
        ("Ann", 3, 4, "apples"),
        ("Ben", 9, 5, "nuts"),
        ("Eva", 12, 6, "pages"),
        ("Tom", 8, 3, "cards"),
        ("Mia", 20, 21, "red balls"),
    )
]
WORDS = [
    "so",
    "she",
    "has",
    "it",
    "and",
    "then",
    "more",
    "3",
    "4",
    "9",
    "5",
    "12",
    "plus",
    "is",
    "are",
    "=",
    "+",
    "-",
    ".",
]


def tiny_config(architecture: str = "t5", dropout: float = 0.0, **more: Any) -> StudentConfig:
    new = NewStudentConfig.model_validate(
        {"architecture": architecture, "hidden": 16, "layers": 1, "heads": 2, "intermediate": 24, "vocab_size": 300}
    )
    return StudentConfig(model="new", new=new, dropout=dropout, max_input_tokens=96, max_target_tokens=64, **more)


def tiny_student(config: StudentConfig) -> Student:
    return make_student(config, [*QUESTIONS, " ".join(WORDS), PREDICT, EXPLAIN])


def tiny_examples(student: Student, count: int, seed: int = 0) -> list[TrainingExample]:
    """Examples of every kind: with none, one or several positives and negatives, with and without an answer."""
    rng = Random(seed)

    def rationales(most: int) -> list[Rationale]:
        texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 8))) for _ in range(rng.randint(0, most))]
        return [Rationale(ids, rng.uniform(0.1, 0.9)) for ids in student.target_ids(list(dict.fromkeys(texts)))]

    examples = []
    for number in range(count):
        question = f"{QUESTIONS[number % len(QUESTIONS)]} {number}"
        positives = rationales(3)
        answer = student.target_ids([str(number)])[0] if not positives or rng.random() < 0.8 else None
        predict, explain = (student.input_ids([prefix + question])[0] for prefix in (PREDICT, EXPLAIN))
        examples.append(TrainingExample(predict, explain, answer, positives, rationales(3)))
    return examples


def as_the_method_has_them(examples: list[TrainingExample], method: MethodConfig) -> list[TrainingExample]:
    """What `tasks.training` would leave of the examples: of most baselines one positive of full weight, or none."""
    if method.rationales == "voted":
        return examples if method.uses_negatives else [replace(one, negatives=()) for one in examples]
    most = 1 if method.rationales == "first" else 0
    fewer = [
        replace(one, positives=[replace(good, score=1.0) for good in one.positives[:most]], negatives=())
        for one in examples
    ]
    if method.one_target:
        fewer = [replace(one, answer_ids=None) for one in fewer]
    return [one for one in fewer if one.answer_ids or one.positives]


class TinyRound(BaseModel):
    """One round, as plain values that another process can be given.

    Attributes:
        folder: of the round; the student before it is saved beside it, in `start`.
        student, method, optimisation: how.
        examples, epochs, before: how many of them, and of rounds before this one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    start: Path
    student: StudentConfig = Field(default_factory=tiny_config)
    method: MethodConfig = MethodConfig(delta=9.0)  # above an untrained student's cross-entropy, so negatives repel
    optimisation: OptimisationConfig = OptimisationConfig(batch_size=4, device="cpu", learning_rate=1e-3)
    examples: int = 13
    epochs: int = 2
    before: int = 0

    def run(self, on_report: Callable[[dict[str, float]], None] | None = None) -> Trained:
        torch.set_num_threads(1)
        if not self.start.exists():
            with whole_folder(self.start) as partial:
                tiny_student(self.student).save(partial / MODEL)
        reader = load_student(self.start / MODEL, self.student)
        examples = as_the_method_has_them(tiny_examples(reader, self.examples), self.method)
        lengths = [example.length for example in examples]
        batches = [
            batch
            for epoch in range(self.epochs)
            for batch in epoch_batches(lengths, self.optimisation.batch_size, 100 * self.before + epoch)
        ]
        return train(
            load=lambda path: StudentTraining(load_student(path, self.student), self.method, len(examples)),
            collate=lambda index: collate(examples, index, reader.pad_id),
            plan=RoundPlan(batches, self.before * len(batches), 2 * len(batches)),
            config=self.optimisation,
            folder=self.folder,
            start=self.start,
            on_report=on_report,
        )


def end_state(checkpoint: Path) -> dict[str, Any]:
    """All that a checkpoint holds: weights, the optimizer's tensors, and its plain values."""
    return {
        **{f"model {name}": value for name, value in load_file(checkpoint / MODEL / "model.safetensors").items()},
        **load_file(checkpoint / OPTIMIZER),
        "plain": json.loads((checkpoint / STATE).read_text(encoding="utf-8")),
    }


def assert_equal_bit_for_bit(first: Path, second: Path) -> None:
    one, other = end_state(first), end_state(second)
    assert one.keys() == other.keys()
    for name, value in one.items():
        same = torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        assert same, f"{name} differs"


# A process that is forked from one that has imported torch already starts in a moment.
_context = get_context("forkserver")
_context.set_forkserver_preload(["tests.models.tiny_round"])


def start_process(function: Callable[..., object], *arguments: object) -> Any:
    """A process of its own, that can be killed."""
    process = _context.Process(target=function, args=arguments)
    process.start()
    return process


def run_together(processes: int, file: Path) -> None:
    """Runs the rounds of a file in so many processes, which know of each other as torchrun's do."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    ranks = [
        meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1"}
        for rank in range(processes)
    ]
    started = [start_process(_run_as, rank, file) for rank in ranks]
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * processes


def _run_as(rank: dict[str, str], file: Path) -> None:
    os.environ.update(rank)
    main(file)


def kill(process: Any) -> bool:
    """kill -9; whether it was still at work."""
    process.kill()
    process.join()
    return bool(process.exitcode == -signal.SIGKILL)


def write_plans(rounds: list[TinyRound], file: Path) -> None:
    # Without what is not set: the code of an earlier commit does not know keys that came later.
    file.write_bytes(TypeAdapter(list[TinyRound]).dump_json(rounds, exclude_none=True))


def main(file: Path) -> None:
    sys.stdout.write(f"models: {Path(next(iter(models.__path__)))}\n")
    for one in TypeAdapter(list[TinyRound]).validate_json(file.read_text(encoding="utf-8")):
        one.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
