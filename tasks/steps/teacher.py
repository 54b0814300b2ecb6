"""The teacher's part of a run as Prefect tasks: trains the lab's teacher if needed, and samples what is missing."""

from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from pydantic import BaseModel

from models.precision import product_precision
from models.processor import detect_processor
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

    def with_more(self, other: "Sampled") -> "Sampled":
        """Both together, of the same teacher."""
        summed: dict[str, Any] = {}
        for name in ("samples", "sampled", "unparsed", "prompt_tokens", "completion_tokens", "seconds", "cost"):
            one, two = getattr(self, name), getattr(other, name)
            summed[name] = None if one is None or two is None else one + two
        return Sampled(teachers=self.teachers, **summed)


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
    if teacher.source != "sample":
        return Sampled(teachers=teacher.teachers or ("*",))
    # Here, because it imports the openai package, which takes a second that recorded samples need not wait for.
    from tasks.steps.asking import ask_all

    return ask_all(workspace, config, teacher)
