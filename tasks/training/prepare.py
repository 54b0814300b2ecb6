"""Prepares a training: its data, its folder, the student as it is before round 0."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from models.precision import decided_precision
from storage.errors import NothingToDo
from storage.ids import content_id
from storage.store import Store
from storage.votes import VoteRule
from tasks.running.worker import Worker
from tasks.training.in_worker import make_initial
from tasks.training.outcomes import Prepared, once
from tasks.training.spec import EXAMPLES_FILE, SPEC_FILE, Parts, TrainingConfig, TrainingSpec, read_spec, training_id
from tasks.training.training_set import judged_questions, training_set


def prepare_training(
    trainings: Path,
    store: Store,
    dataset: str,
    rule: VoteRule,
    parts: Parts,
    config: TrainingConfig,
    worker: Worker | None = None,
) -> Prepared:
    """Makes `trainings/<training id>`, or finds it there.

    Args:
        trainings: the folder of all trainings.
        dataset: name or path of the definition.
        rule: of votes that are stored.
        parts: which questions are for what.
        config: the training.
        worker: makes the student, if one has to be made; None makes it here.

    Raises:
        NothingToDo: nothing to train on, or nothing that says what is right for validation or test.
        BadStudent: no such student.
    """
    found = training_set(store, parts.train, rule, config.method)
    validation = content_id("validation", sorted(parts.validation.ids(store)))

    def is_known(one: TrainingConfig) -> bool:
        return (trainings / training_id(one, found.digest, validation) / SPEC_FILE).is_file()

    config = with_precision(config, is_known)
    identity = training_id(config, found.digest, validation)
    folder = trainings / identity
    spec = TrainingSpec(
        training_id=identity,
        dataset=dataset,
        store=store.files.given,
        rule=rule,
        train=parts.train,
        validation=parts.validation,
        test=parts.test,
        data_digest=found.digest,
        test_digest=content_id("test", sorted(parts.test.ids(store))) if parts.test else None,
        config=config,
    )

    for questions in filter(None, (parts.validation, parts.test)):  # now, not after hours of training
        judged_questions(store, questions, rule)

    def prepare() -> Prepared:
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(found.table, folder / EXAMPLES_FILE)
        arguments = (folder, dataset, config)
        made = worker.run(make_initial, *arguments) if worker else make_initial(*arguments)
        if made.too_long.questions == found.table.num_rows:
            raise NothingToDo(
                f"All {found.table.num_rows:,} questions are longer than student.max_input_tokens "
                f"({config.student.max_input_tokens}); the longest has {made.too_long.longest:,}. Raise it."
            )
        spec.write(folder)
        return Prepared(
            folder=folder,
            training_id=identity,
            name=spec.name,
            questions=found.table.num_rows,
            positives=sum(len(row) for row in found.table["positives"].to_pylist()),
            negatives=sum(len(row) for row in found.table["negatives"].to_pylist()),
            without_answer=found.without_answer,
            without_positives=found.without_positives,
            without_negatives=found.without_negatives,
            left_out=found.left_out,
            parameters=made.parameters,
            too_long=made.too_long,
        )

    # Where the state folder lies may have changed since, or be told in another way.
    prepared = once(folder / "prepared.json", Prepared, prepare).model_copy(update={"folder": folder})
    if read_spec(folder) != spec:  # settings of speed and safety may change between two runs, and the test questions
        spec.write(folder)
    for leftover in interrupted_leftovers(folder):  # one may lie in another that is gone by then
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    return prepared


def with_precision(config: TrainingConfig, is_known: Callable[[TrainingConfig], bool]) -> TrainingConfig:
    """The training with `optimisation.precision: auto` made definite.

    So the id says what is computed in, as it does where somebody named it, and every round is computed in the same, on
    whatever machine. A training that is known in either precision is gone on with: in another machine's state folder
    nothing is trained again. Where none is, this machine decides.

    Args:
        is_known: whether there is a training of a configuration, with its precision made definite.
    """
    if config.optimisation.precision != "auto":
        return config
    here = decided_precision(config.optimisation)
    definite = [
        config.model_copy(update={"optimisation": config.optimisation.model_copy(update={"precision": precision})})
        for precision in (here, "float32" if here == "bfloat16" else "bfloat16")
    ]
    return next(filter(is_known, definite), definite[0])


def interrupted_leftovers(folder: Path) -> list[Path]:
    """Half-written files and folders of processes that are gone; others may be at work in the same folder."""
    found = []
    for place, folders, files in os.walk(folder):  # rglob fails where a folder goes while it looks
        for name in (*folders, *files):
            half = re.fullmatch(r"\..*\.(?:partial|replaced)-([0-9]+)", name)
            if half and not psutil.pid_exists(int(half[1])):
                found.append(Path(place, name))
    return found
