"""Asking a teacher as a step of a run does it: all questions, or those of a shard."""

import glob

from prefect import get_run_logger

from storage.datasets.definition import Dataset
from storage.datasets.registry import get_dataset
from storage.shards import Shard
from storage.store import Store
from tasks.questions.chosen import choice_of
from tasks.questions.sets import DatasetConfig, QuestionSet
from tasks.running.workspace import Workspace
from tasks.steps.teacher import Sampled
from tasks.teacher.budget import Purse, paid_before
from tasks.teacher.key import key_of
from tasks.teacher.planning import SamplingPlan, plan_sampling
from tasks.teacher.sampling import SamplingProgress, per_second
from tasks.teacher.session import OnProgress, Taught, TeacherChoice, asking_of, choose_teacher, teach
from tasks.teacher.settings import TeacherSettings


def ask_all(workspace: Workspace, config: DatasetConfig, teacher: TeacherSettings) -> Sampled:
    """Samples what is missing, with progress reports.

    Raises:
        ServerFailed, TeacherFailed, TeacherUnavailable: from the teacher.
        StoreWriteFailed: from the store.
    """
    choice = choose_teacher(teacher, workspace.home)
    with workspace.progress("sampling the teacher", "teacher") as report:

        def on_progress(state: SamplingProgress) -> None:
            report(
                state.sampled,
                state.wanted,
                tokens_per_second=per_second(state.completion_tokens, state.seconds),
                cost=teacher.price.of(state.prompt_tokens, state.completion_tokens, state.reasoning_tokens),
            )

        taught = ask(workspace, config, teacher, choice, on_progress)
    return summary(teacher, choice, taught.plan.samples, taught.done)


def asked_questions(config: DatasetConfig, dataset: Dataset, teacher: TeacherSettings) -> QuestionSet:
    """The questions that the teacher is asked.

    If validation questions are carved from the same split, the teacher explains those, too: their majority answers
    stand in for missing labels. A budget is for training questions alone.
    """
    part = config.question_set(dataset.name, "train")
    if teacher.budget is not None:
        return part
    return part.model_copy(update={"part": None, "limit": None}) if part.part and not part.limit else part


def ask(
    workspace: Workspace,
    config: DatasetConfig,
    teacher: TeacherSettings,
    choice: TeacherChoice,
    on_progress: OnProgress,
    shard: Shard | None = None,
) -> Taught:
    """Samples what is missing, of all questions or of those of a shard.

    Args:
        choice: as `teacher` chooses it.

    Raises:
        NothingToDo: there are no questions; a shard may have none.
    """
    store, dataset = workspace.open_store(), get_dataset(config.name)
    questions = asked_questions(config, dataset, teacher)
    ids = questions.ids(store, shard)
    purse = None
    if teacher.budget is not None:
        ids = _within_budget(store, dataset, questions, ids, choice, teacher.seed, workspace.run_id)
        if teacher.budget.limit is not None:
            paid = paid_before(store, dataset, questions.split, workspace.run_id, teacher.cost, choice.sampling)
            purse = Purse(teacher.budget.limit, teacher.cost, choice.sampling, paid)
    if not ids:
        return Taught(SamplingPlan(0, 0, 0, [], teacher.asking), None, 0.0)
    return teach(
        store, dataset, questions.split, ids, choice, teacher.seed, workspace.home / "logs",
        get_run_logger().info, on_progress, run_id=workspace.run_id,
        key=key_of(teacher.key_secret) if teacher.key_secret else None, shard=shard,
        purse=purse,
    )  # fmt: skip


def planned(
    store: Store, dataset: Dataset, questions: QuestionSet, ids: list[str], choice: TeacherChoice, seed: int
) -> SamplingPlan:
    """What some questions lack, as `teach` will find it."""
    asking = asking_of(choice, dataset)
    return plan_sampling(store, dataset, questions.split, ids, choice.identity, choice.sampling, seed, asking)


def _within_budget(
    store: Store,
    dataset: Dataset,
    questions: QuestionSet,
    ids: list[str],
    choice: TeacherChoice,
    seed: int,
    run_id: str,
) -> list[str]:
    """Those of the questions that the run has chosen, in its order, and those that lack nothing."""
    if not ids:
        return []
    here = set(ids)
    chosen = [one for one in choice_of(store, questions.partition, run_id) if one in here]
    lacking = {one.question.example_id for one in planned(store, dataset, questions, ids, choice, seed).requests}
    return [*chosen, *(one for one in ids if one not in lacking.union(chosen))]


def summary(teacher: TeacherSettings, choice: TeacherChoice, samples: int, made: SamplingProgress | None) -> Sampled:
    """The step's outcome, and what a person should know of it in the log.

    Args:
        samples: wanted in all.
        made: what was sampled; None if nothing was missing.
    """
    log = get_run_logger()
    if made is None:
        log.info("All %s samples are stored already.", f"{samples:,}")
        made = SamplingProgress(wanted=0)
    else:
        log.info("%s samples made in %.0f s.", f"{made.sampled:,}", made.seconds)
    for what in made.learnt:
        log.warning("The endpoint takes %s.", what)
    if made.cut_off:
        log.warning(
            "%s samples were cut off at %s tokens and have no answer: raise teacher.max_tokens.",
            f"{made.cut_off:,}", teacher.max_tokens,
        )  # fmt: skip
    if made.filtered:
        log.warning("%s samples were cut off by the endpoint's content filter.", f"{made.filtered:,}")
    for example, reason in list(made.refused.items())[:3]:
        log.warning("The teacher refused question %s: %s", example, reason)
    return Sampled(
        teachers=teacher.teachers or (glob.escape(choice.identity.model),),
        samples=samples,
        sampled=made.sampled,
        unparsed=made.unparsed,
        prompt_tokens=made.prompt_tokens,
        completion_tokens=made.completion_tokens,
        seconds=made.seconds,
        cost=teacher.price.of(made.prompt_tokens, made.completion_tokens, made.reasoning_tokens),
    )
