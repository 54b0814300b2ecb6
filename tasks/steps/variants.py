"""The teacher writes variants of training questions (`variants`), as a Prefect task."""

from collections import Counter
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task

from storage.datasets.definition import Dataset
from storage.datasets.registry import get_dataset
from storage.store import Store
from tasks.questions.sets import DatasetConfig, QuestionSet, VariantsConfig
from tasks.questions.stored import store_examples
from tasks.running.worker import Worker
from tasks.running.workspace import Workspace
from tasks.steps.retries import STEP
from tasks.teacher.settings import TeacherSettings
from tasks.tracking.client import open_tracking
from tasks.tracking.packaging import model_name
from tasks.tracking.registry import champion_of
from tasks.tracking.settings import RegistrySettings


@task(name="write variants", **STEP)
def write_variants(
    workspace: Workspace,
    config: DatasetConfig,
    variants: VariantsConfig,
    teacher: TeacherSettings,
    registry: RegistrySettings,
) -> list[QuestionSet]:
    """Has the teacher write what is missing, and stores what can be trained on; returns those questions, by kind.

    Raises:
        ServerFailed, TeacherFailed, TeacherUnavailable: from the teacher.
        StoreWriteFailed: from the store.
    """
    # Here, because they import the openai package, which takes a second.
    from tasks.teacher.key import key_of
    from tasks.teacher.session import choose_teacher
    from tasks.teacher.variants import Source, sorted_variants, variants_split
    from tasks.teacher.variants import write_variants as write

    store, dataset, log = workspace.open_store(), get_dataset(config.name), get_run_logger()
    questions = config.question_set(dataset.name, "train")
    rows = _rows(store, questions)
    sources = [
        Source(row["example_id"], row["question"], tuple(row["choices"]), row["label"])
        for row in (rows if variants.of == "all" else _wrong(workspace, dataset, registry, rows))
    ]
    choice = choose_teacher(teacher, workspace.home)
    made = write(
        store, questions.partition, sources, variants.kinds, choice, teacher.seed, workspace.home / "logs", log.info,
        workspace.run_id, key_of(teacher.key_secret) if teacher.key_secret else None,
    )  # fmt: skip
    kept_out = [
        row["question"]
        for part in ("validation", "test")
        if part in config.splits()
        for row in _rows(store, config.question_set(dataset.name, part))
    ]
    found = []
    for kind, count in variants.kinds.items():
        become = sorted_variants(
            store, dataset, questions.partition, kind, count, sources, [row["question"] for row in rows], kept_out,
            variants.overlap,
        )  # fmt: skip
        split = variants_split(questions.split, kind)
        store_examples(store, dataset, split, become.examples.values())
        log.info(
            "%s %s variants of %s questions (%s written in this run)%s.", f"{len(become.examples):,}", kind,
            f"{len(sources):,}", f"{made:,}", _told(become.refused),
        )  # fmt: skip
        if become.examples:
            found.append(QuestionSet(dataset=dataset.name, split=split, only=tuple(sorted(become.examples))))
    return found


def _told(refused: Counter[str]) -> str:
    """What was refused, for people."""
    return "".join(f"; {count:,} refused: {reason}" for reason, count in sorted(refused.items()))


def _rows(store: Store, questions: QuestionSet) -> list[dict[str, Any]]:
    with store.connect() as con:
        rows: list[dict[str, Any]] = store.execute(
            con, f"SELECT example_id, question, choices, label, extra FROM {questions.sql(store)} ORDER BY example_id"
        ).to_pylist()
    return rows


def _wrong(
    workspace: Workspace, dataset: Dataset, registry: RegistrySettings, rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The questions with a label that the champion answers wrongly."""
    from tasks.tracking.chooser import wrong_by_champion

    name = registry.name or model_name(dataset.name)
    if champion_of(open_tracking(workspace.home), name) is None:
        get_run_logger().warning(
            "No champion of %s is registered yet, so there is nothing it gets wrong: no variants are written.", name
        )
        return []
    labelled = [row for row in rows if row["label"] is not None]
    with Worker() as worker:
        wrong = set(worker.run(wrong_by_champion, Path(workspace.home), name, labelled))
    return [row for row in labelled if row["example_id"] in wrong]
