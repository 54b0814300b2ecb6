"""A training whose student learns the teacher's mistakes on the validation questions, round by round, without any
training: its predictions are made up, everything else is real."""

from pathlib import Path

import pyarrow as pa

from storage.schemas import PREDICTIONS
from storage.store import now
from tasks.training.folder import Training
from tasks.training.outcomes import Evaluation, Prepared
from tests.tasks.training.world import World, small_world

RIGHT, WRONG = 12, 12
"""Validation questions on which the teacher is right, and on which it is wrong: its answer is 1, the label is 2."""
COPIED = (2, 1, 4, 12)
"""Of the latter, those on which the student says what the teacher says, by round; else it is right."""


def hacked(root: Path, labelled: bool = True) -> tuple[World, Prepared, list[str]]:
    """The store, the training, and the ids of the validation questions that the teacher has answered."""
    world = small_world(root)
    asked = []
    for number in range(RIGHT + WRONG):
        label = str(2 if number < WRONG else number)
        key = world.ask(f"Cy has {number} pens. How many?", label if labelled else None, "validation")
        answer = "1" if number < WRONG else label
        world.sample(key, ("So.", answer), ("Thus.", answer), split="validation")
        asked.append(key)
    world.vote("validation")
    prepared = world.prepare()
    training = Training(prepared.folder)
    for t, copied in enumerate(COPIED):
        rows = [
            {"example_id": key, "model": prepared.spec.student_name(t), "split": "validation", "dataset": "lab",
             "answer": "bare", "given_answer": "1" if number < copied else str(2 if number < WRONG else number),
             "correct": False, "created_at": now(), "run_id": prepared.training_id}
            for number, key in enumerate(asked)
        ]  # fmt: skip
        world.store.upsert(PREDICTIONS, pa.Table.from_pylist(rows, PREDICTIONS.schema))
        accuracy = 1 - copied / len(rows)
        result = Evaluation(t=t, part="validation", questions=24, answered=24, correct=24 - copied, accuracy=accuracy)
        training.evaluated_once(t, "validation", lambda result=result: result)  # type: ignore[misc]
    return world, prepared, asked
