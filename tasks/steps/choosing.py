"""Chooses the questions that a run pays for (`teacher.budget`), once, as a Prefect task."""

from pathlib import Path

from prefect import get_run_logger, task

from storage.datasets.registry import get_dataset
from storage.schemas import EXAMPLES
from storage.store import Store
from tasks.questions.choosing import shuffled
from tasks.questions.chosen import choice_of, chosen_by_others, store_choice
from tasks.questions.sets import DatasetConfig
from tasks.running.worker import Worker
from tasks.running.workspace import Workspace
from tasks.serving.settings import Question
from tasks.steps.retries import STEP
from tasks.teacher.budget import Budget, affordable
from tasks.teacher.settings import TeacherSettings
from tasks.tracking.client import open_tracking
from tasks.tracking.packaging import model_name
from tasks.tracking.registry import champion_of
from tasks.tracking.settings import RegistrySettings


@task(name="choose questions", **STEP)
def choose_questions(
    workspace: Workspace, config: DatasetConfig, teacher: TeacherSettings, budget: Budget, registry: RegistrySettings
) -> int:
    """Chooses among the training questions that lack samples, and stores the choice; a run that has chosen keeps it.

    Labels are not read. Questions that were begun come first, those that an earlier run chose and did not get last.

    Returns:
        How many are chosen.

    Raises:
        NothingToDo: there are no questions.
        TrackingFailed: MLflow cannot be reached.
    """
    from tasks.steps.asking import asked_questions, planned  # imports the openai package, which takes a second
    from tasks.teacher.session import choose_teacher

    store, dataset, log = workspace.open_store(), get_dataset(config.name), get_run_logger()
    questions = asked_questions(config, dataset, teacher)
    if known := choice_of(store, questions.partition, workspace.run_id):
        log.info("%s questions were chosen before.", f"{len(known):,}")
        return len(known)
    choice = choose_teacher(teacher, workspace.home)
    ids = questions.ids(store)
    plan = planned(store, dataset, questions, ids, choice, teacher.seed)
    begun = {request.question.example_id: bool(request.question.answers) for request in plan.requests}
    first = shuffled([one for one, has_some in begun.items() if has_some], teacher.seed)
    # What an earlier run chose and did not get comes last: if it is refused, it must not be all that is ever chosen.
    tried = chosen_by_others(store, questions.partition, workspace.run_id)
    left = shuffled([one for one, has_some in begun.items() if not has_some and one not in tried], teacher.seed)
    last = shuffled([one for one, has_some in begun.items() if not has_some and one in tried], teacher.seed)
    most = affordable(
        store, dataset, questions.split, choice.identity.model, budget, teacher.cost, teacher.asking.least
    )
    count = len(begun) if most is None else min(most, len(begun))
    wanted = max(0, count - len(first))
    how, student = teacher.choose, None
    if how != "random" and left and wanted:
        name = registry.name or model_name(dataset.name)
        texts = _texts(store, questions.partition, ids)
        asked = [texts[one] for one in ids if not (one in begun and not begun[one])]
        found = _by_champion(workspace, name, teacher, [(one, texts[one]) for one in left], asked, wanted)
        if found is None:
            how = "random"
        else:
            left, student = found
    chosen = [*first, *left, *last][:count]
    store_choice(store, questions.partition, workspace.run_id, chosen, how, student)
    log.info(
        "Of %s questions %s have their samples, and %s are chosen (%s%s) for a budget of %s.", f"{len(ids):,}",
        f"{len(ids) - len(begun):,}", f"{len(chosen):,}", how, f", by {student}" if student else "", budget,
    )  # fmt: skip
    return len(chosen)


def _by_champion(
    workspace: Workspace,
    name: str,
    teacher: TeacherSettings,
    left: list[tuple[str, Question]],
    asked: list[Question],
    wanted: int,
) -> tuple[list[str], str] | None:
    """The ids that the champion chooses, and its version; None, and a line in the log, if it cannot choose so."""
    from tasks.tracking.chooser import chosen_by_champion

    log = get_run_logger()
    if champion_of(open_tracking(workspace.home), name) is None:
        log.warning(
            "No champion of %s is registered yet, so teacher.choose: %s has no student to go by: the questions are "
            "random.", name, teacher.choose,
        )  # fmt: skip
        return None
    with workspace.progress("choosing questions", "choosing") as report, Worker() as worker:
        found = worker.run(
            chosen_by_champion, Path(workspace.home), name, teacher.choose, left, asked, wanted, teacher.random_share,
            reports="on_progress", on_report=report,
        )  # fmt: skip
    if found is None:
        log.warning(
            "The champion of %s writes no rationales, so teacher.choose: %s cannot go by them: the questions are "
            "random.", name, teacher.choose,
        )  # fmt: skip
    return found


def _texts(store: Store, partition: dict[str, str], ids: list[str]) -> dict[str, Question]:
    """What the student reads; no labels."""
    wanted = set(ids)
    with store.connect() as con:
        rows = store.execute(
            con, f"SELECT example_id, question, choices FROM {store.relation(EXAMPLES, partition)}"
        ).to_pylist()
    return {
        row["example_id"]: Question(row["question"], tuple(row["choices"]))
        for row in rows
        if row["example_id"] in wanted
    }
