"""Stores a run's questions, and recorded samples, as Prefect tasks."""

from prefect import get_run_logger, task
from pydantic import BaseModel

from storage.datasets.registry import get_dataset
from storage.errors import OutOfReach, UnknownName, one_line
from storage.schemas import EXAMPLES
from storage.store import Store
from tasks.questions.sets import DatasetConfig, Part, QuestionSet, questions_version
from tasks.questions.stored import store_examples
from tasks.running.workspace import Workspace
from tasks.steps.retries import STEP
from tasks.teacher.recorded import import_recorded
from tasks.teacher.settings import TeacherSettings
from tasks.watching.figures import Figure, last_with, store_figures

DATASET_FIGURE = "dataset"


class Questions(BaseModel):
    """The questions of a run.

    Attributes:
        dataset: the dataset's stored name.
        version: content id of all questions and their labels.
        counts: how many there are for training, validation and test.
        new: how many were not stored before.
    """

    dataset: str
    version: str
    counts: dict[Part, int]
    new: int


@task(name="import", timeout_seconds=3600, **STEP)
def import_recordings(workspace: Workspace, config: DatasetConfig, teacher: TeacherSettings) -> int:
    """Imports recorded samples and their questions into the store; returns how many samples were new."""
    store, dataset = workspace.open_store(), get_dataset(config.name)
    done = [
        import_recorded(
            store,
            dataset,
            file.path,
            config.train_split,
            answers=file.answers,
            rationale=teacher.rationale,
            mapping=file.columns,
        )
        for file in teacher.files
    ]
    samples, added = sum(one.samples for one in done), sum(one.added for one in done)
    get_run_logger().info("%s recorded samples, %s of them new.", f"{samples:,}", f"{added:,}")
    return added


@task(name="store questions", timeout_seconds=3600, **STEP)
def store_questions(workspace: Workspace, config: DatasetConfig) -> Questions:
    """Stores the questions of all parts; if a source cannot be reached, its stored questions do instead."""
    store, dataset, log = workspace.open_store(), get_dataset(config.name), get_run_logger()
    wanted: dict[str, int | None] = {}
    for part, split in config.splits().items():
        limit = config.question_set(dataset.name, part).limit
        whole = config.folds is not None or config.validation_split is None
        wanted[split] = None if whole or limit is None else max(limit, wanted.get(split) or 0)
    for part, split in config.splits().items():
        if split not in dataset.splits and split not in config.paths and not _is_stored(store, dataset.name, split):
            raise UnknownName(
                f"dataset.{part}_split", split, dataset.splits,
                f"Or name its file: dataset.paths.{split}=FILE"
                + ("." if part == "train" else f"; or go without it: dataset.{part}_split=null."),
            )  # fmt: skip
    new = 0
    for split, limit in wanted.items():
        path = config.paths.get(split)
        try:
            stored = store_examples(store, dataset, split, dataset.load(split, path, limit))
            new += stored.added
            for note in stored.notes:
                log.info("%s: %s", split, note)
        except OutOfReach as error:
            if path is not None or not _is_stored(store, dataset.name, split):
                raise
            log.warning("%s. Taking the questions of split %s that are stored.", one_line(error), split)
    sets = {part: config.question_set(dataset.name, part) for part in config.splits()}
    counts = {part: len(one.ids(store)) for part, one in sets.items()}
    version = questions_version(store, sets.values())
    log.info("%s: %s", dataset.name, ", ".join(f"{count:,} {part}" for part, count in counts.items()))
    before = last_with(store, dataset.name, DATASET_FIGURE, but=workspace.run_id)
    known = before.figures[DATASET_FIGURE].detail.get("version") if before else None
    if known not in (None, version):
        log.info("Other questions than in the run before: version %s, not %s; %s are new.", version, known, f"{new:,}")
    total = Figure(sum(counts.values()), {"version": version, "parts": dict(counts)})
    store_figures(store, workspace.run_id, dataset.name, {DATASET_FIGURE: total})
    return Questions(dataset=dataset.name, version=version, counts=counts, new=new)


def passed_on(workspace: Workspace, config: DatasetConfig) -> list[QuestionSet]:
    """The further training questions that `qcrd answer` has passed on to the teacher; none, or one set of them."""
    store, dataset = workspace.open_store(), get_dataset(config.name)
    questions = config.passed_on_set(dataset.name)
    if not config.passed_on or not store.parts(EXAMPLES, questions.partition):
        return []
    with store.connect() as con:
        count = store.execute(con, f"SELECT count(*) AS n FROM {questions.sql(store)}")["n"][0].as_py()
    get_run_logger().info("%s training questions were passed on by `qcrd answer`.", f"{count:,}")
    return [questions]


def _is_stored(store: Store, dataset: str, split: str) -> bool:
    """Whether the store holds questions of a split."""
    return bool(store.parts(EXAMPLES, {"dataset": dataset, "split": split}))
