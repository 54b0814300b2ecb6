"""The teacher's part of a run as Prefect tasks: trains the lab's teacher if needed, and samples what is missing."""

import glob
from pathlib import Path

from prefect import get_run_logger, task
from pydantic import BaseModel

from models.precision import product_precision
from models.processor import detect_processor
from storage.datasets.registry import get_dataset
from tasks.questions.sets import DatasetConfig
from tasks.running.worker import Worker
from tasks.running.workspace import Workspace
from tasks.steps.retries import STEP
from tasks.teacher.lab import build_lab, find_lab
from tasks.teacher.settings import TeacherSettings


class Sampled(BaseModel):
    """The outcome of the teacher's step.

    Attributes:
        teachers: globs of the teachers that vote.
        samples: samples wanted; 0 if none are made.
        sampled: how many this run made.
        unparsed: how many of those have no answer.
        prompt_tokens, completion_tokens: of this run's samples; None if the endpoint does not tell.
        seconds: how long sampling took.
        cost: of this run's samples; None if no price is given, or the tokens are not known.
    """

    teachers: tuple[str, ...]
    samples: int = 0
    sampled: int = 0
    unparsed: int = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    seconds: float = 0.0
    cost: float | None = None


@task(name="build the lab's teacher", **STEP)
def build_lab_teacher(workspace: Workspace) -> Path:
    """Trains the lab's teacher once; later runs find it."""
    log = get_run_logger()
    known = find_lab(workspace.home)
    if known is not None:
        return known
    log.info(
        "Training the lab's teacher, once (about 3 minutes on an idle core; this one has %s, and Muon computes in %s).",
        detect_processor().uses, product_precision("cpu"),
    )  # fmt: skip
    with workspace.progress("training the lab's teacher", "lab-teacher") as report, Worker() as worker:
        built = worker.run(
            build_lab, workspace.home, reports="on_progress",
            on_report=lambda step, steps, loss, _: report(step, steps, f"loss {loss:.3f}"),
        )  # fmt: skip
    log.info("The lab's teacher took %.0f s: %s", built.seconds, built.folder)
    return built.folder


@task(name="ask the teacher", **STEP)
def ask_teacher(workspace: Workspace, config: DatasetConfig, teacher: TeacherSettings) -> Sampled:
    """Samples what is missing; recorded and stored samples are taken as they are."""
    store, dataset, log = workspace.open_store(), get_dataset(config.name), get_run_logger()
    if teacher.source != "sample":
        return Sampled(teachers=teacher.teachers or ("*",))
    # Here, because they import the openai package, which takes a second that recorded samples need not wait for.
    from tasks.teacher.key import key_of
    from tasks.teacher.sampling import SamplingProgress, per_second
    from tasks.teacher.session import choose_teacher, teach

    choice = choose_teacher(teacher, workspace.home)
    # If validation questions are carved from the same split, the teacher explains those, too: their majority answers
    # stand in for missing labels.
    part = config.question_set(dataset.name, "train")
    questions = part.model_copy(update={"part": None, "limit": None}) if part.part and not part.limit else part
    with workspace.progress("sampling the teacher", "teacher") as report:

        def on_progress(state: SamplingProgress) -> None:
            report(
                state.sampled,
                state.wanted,
                tokens_per_second=per_second(state.completion_tokens, state.seconds),
                cost=teacher.price.of(state.prompt_tokens, state.completion_tokens, state.reasoning_tokens),
            )

        taught = teach(
            store, dataset, part.split, questions.ids(store), choice, teacher.seed, workspace.home / "logs", log.info,
            on_progress, run_id=workspace.run_id, key=key_of(teacher.key_secret) if teacher.key_secret else None,
        )  # fmt: skip
    made = taught.done or SamplingProgress(wanted=0)
    if taught.done is None:
        log.info("All %s samples are stored already.", f"{taught.plan.samples:,}")
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
        samples=taught.plan.samples,
        sampled=made.sampled,
        unparsed=made.unparsed,
        prompt_tokens=made.prompt_tokens,
        completion_tokens=made.completion_tokens,
        seconds=made.seconds,
        cost=teacher.price.of(made.prompt_tokens, made.completion_tokens, made.reasoning_tokens),
    )
