"""Trains the student for one round on positives, negatives and their scores.

python -m tasks.training.student FOLDER ROUND                                      one process
torchrun --standalone --nproc_per_node 4 -m tasks.training.student FOLDER ROUND    one per GPU

`tasks.training.nodes` starts the second, on one machine or on several.
"""

import json
import os
import random
import sys
from array import array
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from models.batches import epoch_batches
from models.example_file import ExampleFile
from models.folders import MODEL
from models.judge import judge_input
from models.losses import relative_scores
from models.methods import MethodConfig
from models.prefixes import EXPLAIN, PREDICT, RIGHT, WRONG, WRONGLY
from models.seeds import derived_seed
from models.student import Student
from models.student_loading import load_student
from models.student_training import (
    Rationale,
    SideTask,
    StudentTraining,
    TrainingExample,
    collate,
    common_start,
    packed,
    unpacked,
)
from models.trainer import RoundPlan, StepReport, train
from storage.datasets.definition import Dataset
from storage.errors import NothingToDo, one_line
from tasks.errors import ONE_LINE
from tasks.training.folder import Training
from tasks.training.initial import target_text
from tasks.training.nodes import train_together
from tasks.training.outcomes import RoundTrained
from tasks.training.own_rationales import OwnRationales, own_in_parts
from tasks.training.quality import scores_among, stored_scores, version_of
from tasks.training.spec import TrainingSpec


def train_round(folder: Path, t: int, on_report: StepReport | None = None) -> RoundTrained:
    """Trains round t, or what is left of it, in this process or in several.

    Args:
        folder: the training's folder; the round before is finished.
        t: the round.
        on_report: called with the figures now and then; not called if several processes train.

    Raises:
        TrainingDiverged: the loss is not a number or grew without bound.
        TrainingFailed: a training process died.
    """
    training = Training(folder)
    if training.spec.config.rounds.launched:
        return train_together(training, t)
    return training.once(RoundTrained, lambda: _train(training, t, on_report), t)


def training_examples(
    spec: TrainingSpec,
    dataset: Dataset,
    student: Student,
    rows: Sequence[Mapping[str, Any]],
    own: Mapping[str, OwnRationales],
    scores: Mapping[str, float] | None,
    draw: random.Random | None = None,
) -> tuple[list[TrainingExample], int]:
    """Tokenises a training set, or the next part of one.

    Args:
        rows: as in `tasks.training.training_set.SCHEMA`.
        own: example_id -> the student's own rationales of this round, trained on as the tokens it wrote.
        scores: sample_id -> quality; None if the method has no discriminator.
        draw: chooses the rationales that the side tasks are about; the same one for all parts.

    Returns:
        The examples, and how many questions, answers and rationales are left out because they are too long (or have
        no score, for the same reason).
    """
    method = spec.config.method
    questions = [dataset.student_input(row["question"], tuple(row["choices"])) for row in rows]
    predict = student.input_ids([PREDICT + question for question in questions])
    explain = student.input_ids([EXPLAIN + question for question in questions])
    none = OwnRationales()
    chosen = [_rationales_of(row, own.get(row["example_id"], none)) for row in rows]
    side_tasks = _side_tasks(student, questions, chosen, method, draw or side_task_draw(spec, 0))
    if not method.uses_negatives:  # the teacher's bad ones may still be data
        chosen = [(good, []) for good, _ in chosen]
    # Where the answer comes first, a teacher's bad rationale follows the right one: only the rationale is at fault.
    targets = {
        key: target_text(text, row["answer"], method)
        for row, (good, bad) in zip(rows, chosen, strict=True)
        for key, text in (*good, *bad)
    }
    ids_of = dict(zip(targets, student.target_ids(list(targets.values())), strict=True))
    for key, made in ((made["sample_id"], made) for one in own.values() for made in (*one.positives, *one.negatives)):
        if made["token_ids"] is not None:
            ids_of[key] = made["token_ids"]
        # Of an older sample only the text is known. One that never ended may be a few tokens longer, tokenised again.
        elif len(ids := ids_of.get(key, [])) > student.max_target_tokens:
            ids_of[key] = ids[: student.max_target_tokens]
    answers = student.target_ids([row["answer"] or "" for row in rows])
    heads = (
        student.target_ids([target_text("", row["answer"], method) for row in rows]) if method.answer_share else None
    )
    examples, left_out = [], 0
    for place, (row, predict_ids, explain_ids, answer, (good, bad), tasks) in enumerate(
        zip(rows, predict, explain, answers, chosen, side_tasks, strict=True)
    ):
        if max(len(predict_ids), len(explain_ids)) > student.max_input_tokens:
            left_out += 1
            continue
        sides: list[list[Rationale]] = []
        for side, alone in ((good, 1.0), (bad, 0.0)):
            fitting = [
                (key, ids_of[key])
                for key, _ in side
                if len(ids_of[key]) <= student.max_target_tokens and (scores is None or key in scores)
            ]
            left_out += len(side) - len(fitting)
            known = [alone if scores is None else scores[key] for key, _ in fitting]
            if scores is not None:
                known = relative_scores(method.quality, known, negative=side is bad)
            by_itself = own.get(row["example_id"], none).ids()
            sides.append(
                [
                    Rationale(ids, score, key in by_itself, common_start(ids, heads[place]) if heads else 0)
                    for (key, ids), score in zip(fitting, known, strict=True)
                ]
            )
        has_answer = row["answer"] is not None and method.weights[0] > 0
        if has_answer and len(answer) > student.max_target_tokens:
            left_out += 1
            has_answer = False
        if has_answer or sides[0]:
            examples.append(
                TrainingExample(predict_ids, explain_ids, answer if has_answer else None, sides[0], sides[1], tasks)
            )
    return examples, left_out


def side_task_draw(spec: TrainingSpec, t: int) -> random.Random:
    """What round t draws the rationales of its side tasks with."""
    return random.Random(derived_seed("side tasks", spec.training_id, t))  # noqa: S311 - reproducible, no secret


def _rationales_of(row: Mapping[str, Any], own: OwnRationales) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(sample_id, text) of an example's positives and of its negatives."""
    sides = ((row["positives"], own.positives), (row["negatives"], own.negatives))
    good, bad = ([(one["sample_id"], one["text"]) for one in (*teachers, *its)] for teachers, its in sides)
    return good, bad


def _side_tasks(
    student: Student,
    questions: list[str],
    chosen: list[tuple[list[tuple[str, str]], list[tuple[str, str]]]],
    method: MethodConfig,
    draw: random.Random,
) -> list[list[SideTask]]:
    """Of each question one bad rationale under `explain wrong: `, and one rationale to judge, good or bad alike often.
    Each round draws others. What is too long for the student is left out."""
    wanted: list[tuple[int, str, str, float]] = []
    for place, (question, (good, bad)) in enumerate(zip(questions, chosen, strict=True)):
        if method.wrong_weight and bad:
            wanted.append((place, WRONGLY + question, draw.choice(bad)[1], method.wrong_weight))
        if method.judge_weight and (good or bad):
            side = draw.choice([side for side in (good, bad) if side])
            asked = judge_input(question, draw.choice(side)[1])
            wanted.append((place, asked, RIGHT if side is good else WRONG, method.judge_weight))
    inputs = student.input_ids([text for _, text, _, _ in wanted])
    targets = student.target_ids([text for _, _, text, _ in wanted])
    found: list[list[SideTask]] = [[] for _ in questions]
    for (place, _, _, weight), input_ids, target_ids in zip(wanted, inputs, targets, strict=True):
        if len(input_ids) <= student.max_input_tokens and len(target_ids) <= student.max_target_tokens:
            found[place].append(SideTask(input_ids, target_ids, weight))
    return found


def _train(training: Training, t: int, on_report: StepReport | None) -> RoundTrained:
    config = training.spec.config
    if config.rounds.threads:
        torch.set_num_threads(config.rounds.threads)
    start = training.checkpoint(t - 1)
    reader = load_student(start / MODEL, config.student)
    with ExampleFile(training.round(t), packed, unpacked) as examples:
        lengths, left_out = _tokenised(training, reader, t, examples)
        return _trained(training, reader, t, examples, lengths, left_out, start, on_report)


def _tokenised(
    training: Training, reader: Student, t: int, examples: ExampleFile[TrainingExample]
) -> tuple[Sequence[int], int]:
    """Fills the file with round t's examples, a part of the training set at a time.

    Returns:
        The examples' lengths, and how much is left out (`training_examples`).
    """
    spec, store = training.spec, training.store
    stored = stored_scores(store, spec, version_of(spec, t)) if spec.config.method.quality_source else None
    draw, lengths, left_out = side_task_draw(spec, t), array("i"), 0
    for rows, own in own_in_parts(store, spec, t, training.example_parts):
        scores = None if stored is None else scores_among(stored, _rationale_ids(rows, own))
        made, too_long = training_examples(spec, training.dataset, reader, rows, own, scores, draw)
        for example in made:
            examples.append(example)
            lengths.append(example.length)
        left_out += too_long
    return lengths, left_out


def _rationale_ids(rows: Sequence[Mapping[str, Any]], own: Mapping[str, OwnRationales]) -> list[str]:
    """The sample ids of all rationales of some questions."""
    teachers = (item["sample_id"] for row in rows for item in (*row["positives"], *row["negatives"]))
    return [*teachers, *chain.from_iterable(one.ids() for one in own.values())]


def _trained(
    training: Training,
    reader: Student,
    t: int,
    examples: Sequence[TrainingExample],
    lengths: Sequence[int],
    left_out: int,
    start: Path,
    on_report: StepReport | None,
) -> RoundTrained:
    spec, config = training.spec, training.spec.config
    if not examples:
        raise NothingToDo(
            f"Nothing is left to train on: every target of {spec.name} is longer than student.max_target_tokens "
            f"({reader.max_target_tokens}), or its question than student.max_input_tokens. Raise them."
        )
    method = config.method.in_round(t, config.rounds.rounds)
    batch_size = config.optimisation.batch_size
    batches = [
        batch
        for epoch in range(config.rounds.epochs_per_round)
        for batch in epoch_batches(lengths, batch_size, derived_seed("order", config.optimisation.seed, t, epoch))
    ]
    trained = train(
        load=lambda path: StudentTraining(load_student(path, config.student), method, len(examples)),
        collate=lambda index: collate(examples, index, reader.pad_id),
        plan=RoundPlan(batches, t * len(batches), config.rounds.rounds * len(batches)),
        config=config.optimisation,
        folder=training.round(t),
        start=start,
        on_report=on_report,
    )
    return RoundTrained(
        t=t,
        checkpoint=trained.checkpoint.name,
        steps=len(batches),
        examples=len(examples),
        means=trained.means,
        seconds=trained.seconds,
        left_out=left_out,
    )


def main(folder: Path, t: int) -> int:
    """One of several training processes; the first one holds the work lock and writes the outcome."""
    training = Training(folder)
    first = os.environ.get("RANK", "0") == "0"  # torchrun's; accelerate starts the process group later
    try:
        if first:
            training.once(RoundTrained, lambda: _train(training, t, None), t)
        else:
            _train(training, t, None)
    except ONE_LINE as error:
        return _told(str(error))
    except RuntimeError as error:  # a collective's: gloo and NCCL have no error of their own for it
        if not torch.distributed.is_initialized():
            raise
        return _told(f"another process is gone, or out of reach: {one_line(error)}")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 0


def _told(error: str) -> int:
    sys.stderr.write(json.dumps({"error": error}) + "\n")  # in one write: the other processes write here, too
    return 2


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
