"""The steps of a distillation as Prefect tasks: what the flow calls, what Prefect's UI shows, retries and caches.

Each wraps one plain function and adds what a run needs around it: the worker process, progress, a line in the log, an
artifact. What travels between them are paths, ids and small results.

Caching. Every step is idempotent by itself: samples, votes, scores and predictions are rows under content ids, and a
training's folder is its content id. So a step that has been done finds that out in a moment. The steps of a round are
also cached by Prefect, under that id; the questions, the samples and the votes are not, because only the store knows
whether there is something new.
"""

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, get_type_hints

from prefect import get_run_logger, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.context import TaskRunContext
from prefect.exceptions import ObjectAlreadyExists
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL
from pydantic import BaseModel

from models.errors import ServerFailed, TeacherUnavailable, WorkerDied
from storage.datasets.registry import get_dataset
from storage.errors import OutOfReach, StoreWriteFailed, UnknownName, UsageError
from storage.schemas import EXAMPLES
from storage.store import Store
from storage.votes import VoteRule, VoteSummary, vote
from tasks.errors import TrackingFailed
from tasks.questions.sets import DatasetConfig, Part, questions_version
from tasks.questions.stored import store_examples
from tasks.running.progress import Progress, progress
from tasks.running.worker import Worker, refuse_if_stopping
from tasks.teacher.key import key_of
from tasks.teacher.lab import build_lab, find_lab
from tasks.teacher.recorded import import_recorded
from tasks.teacher.sampling import SamplingProgress
from tasks.teacher.session import teach
from tasks.teacher.settings import TeacherSettings
from tasks.training.in_worker import evaluate_round, sample_negatives, train_round, update_quality
from tasks.training.outcomes import (
    NEGATIVES_FILE,
    QUALITY_FILE,
    Evaluation,
    NegativesSampled,
    Prepared,
    QualityUpdated,
    RoundTrained,
)
from tasks.training.prepare import prepare_training
from tasks.training.spec import INITIAL, SPEC_FILE, Parts, TrainingConfig, read_spec, round_folder
from tasks.watching.figures import Figure, last_with, store_figures

MAY_PASS = (TeacherUnavailable, ServerFailed, WorkerDied, StoreWriteFailed, TrackingFailed)
"""Errors after which trying again may help; the others say what somebody has to change first."""
DATASET_FIGURE = "dataset"
LEASE_S = 60
MACHINE_VARIABLE = "QCRD_MACHINE"


class Place(BaseModel):
    """Where a run works.

    Attributes:
        home: the state folder.
        store: root of the rationale store.
        run_id: of the store's `runs` table.
    """

    home: Path
    store: str
    run_id: str

    def open_store(self) -> Store:
        """The store."""
        return Store(self.store)

    def progress(self, what: str, key: str) -> AbstractContextManager[Progress]:
        """Reports of a step: `what` for people, `key` of its artifact."""
        return progress(self.home, self.run_id, what, f"progress-{key}")


class Questions(BaseModel):
    """The questions of a run.

    Attributes:
        dataset: the dataset's stored name.
        version: content id of all of them with their labels.
        counts: how many there are for training, validation and test.
        new: how many were not stored before.
    """

    dataset: str
    version: str
    counts: dict[Part, int]
    new: int


class Sampled(BaseModel):
    """What the teacher's step came to.

    Attributes:
        teachers: globs of the teachers that vote.
        samples: samples wanted; 0 where none are made.
        sampled: how many this run made.
        unparsed: those of them without an answer.
        prompt_tokens, completion_tokens: of this run's samples.
        seconds: it took.
        cost: of this run's samples; None where no price is given.
    """

    teachers: tuple[str, ...]
    samples: int = 0
    sampled: int = 0
    unparsed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cost: float | None = None


def may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """Prefect asks whether to try again."""
    return isinstance(state.result(raise_on_failure=False), MAY_PASS)


def _round_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """Cache key of a round's step: the training's content id, the round, and which making of its folder it is."""
    folder: Path = parameters["folder"]
    # Prefect stores a result under its class's name; another version, which has the class elsewhere, cannot read it.
    kind: type[BaseModel] = get_type_hints(context.task.fn)["return"]
    # A folder that was removed and made again starts anew, and other test questions are asked.
    made = (folder / SPEC_FILE).stat().st_mtime_ns
    rest = [str(value) for name, value in sorted(parameters.items()) if name in ("t", "part")]
    return ":".join(["qcrd", context.task.name, kind.__module__, kind.__qualname__, folder.name, str(made), *rest])


STEP: dict[str, Any] = {"retries": 2, "retry_delay_seconds": 10, "retry_condition_fn": may_pass}
ROUND_STEP: dict[str, Any] = STEP | {
    "cache_key_fn": _round_key, "persist_result": True, "result_serializer": "json",
}  # fmt: skip


@task(name="import", timeout_seconds=3600, **STEP)
def import_recordings(place: Place, config: DatasetConfig, teacher: TeacherSettings) -> int:
    """Brings recorded samples, and their questions, into the store; returns how many samples were new."""
    store, dataset = place.open_store(), get_dataset(config.name)
    done = [
        import_recorded(store, dataset, file.path, config.train_split, answers=file.answers, mapping=file.columns)
        for file in teacher.files
    ]
    samples, added = sum(one.samples for one in done), sum(one.added for one in done)
    get_run_logger().info("%s recorded samples, %s of them new.", f"{samples:,}", f"{added:,}")
    return added


@task(name="store questions", timeout_seconds=3600, **STEP)
def store_questions(place: Place, config: DatasetConfig) -> Questions:
    """Puts the questions of all parts into the store; where a source is out of reach, stored ones serve."""
    store, dataset, log = place.open_store(), get_dataset(config.name), get_run_logger()
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
            new += store_examples(store, dataset, split, dataset.load(split, path, limit)).added
        except OutOfReach as error:
            if path is not None or not _is_stored(store, dataset.name, split):
                raise
            log.warning(
                "%s. Taking the questions of split %s that are stored.", " ".join(str(error).split()).rstrip("."), split
            )
    sets = {part: config.question_set(dataset.name, part) for part in config.splits()}
    counts = {part: len(one.ids(store)) for part, one in sets.items()}
    version = questions_version(store, sets.values())
    log.info("%s: %s", dataset.name, ", ".join(f"{count:,} {part}" for part, count in counts.items()))
    before = last_with(store, dataset.name, DATASET_FIGURE, but=place.run_id)
    known = before.figures[DATASET_FIGURE].detail.get("version") if before else None
    if known not in (None, version):
        log.info("Other questions than in the run before: version %s, not %s; %s are new.", version, known, f"{new:,}")
    total = Figure(sum(counts.values()), {"version": version, "parts": dict(counts)})
    store_figures(store, place.run_id, dataset.name, {DATASET_FIGURE: total})
    return Questions(dataset=dataset.name, version=version, counts=counts, new=new)


@task(name="build the lab's teacher", **STEP)
def build_lab_teacher(place: Place) -> Path:
    """Trains the lab's teacher, once; later runs find it."""
    log = get_run_logger()
    known = find_lab(place.home)
    if known is not None:
        return known
    log.info("Training the lab's teacher, once (about 3 minutes on an idle core).")
    with place.progress("training the lab's teacher", "lab-teacher") as report, Worker() as worker:
        built = worker.run(
            build_lab, place.home, reports="on_progress",
            on_report=lambda step, steps, loss, _: report(step, steps, f"loss {loss:.3f}"),
        )  # fmt: skip
    log.info("The lab's teacher took %.0f s: %s", built.seconds, built.folder)
    return built.folder


@task(name="ask the teacher", **STEP)
def ask_teacher(place: Place, config: DatasetConfig, teacher: TeacherSettings) -> Sampled:
    """Samples what is missing; of a recorded or stored teacher nothing is."""
    store, dataset, log = place.open_store(), get_dataset(config.name), get_run_logger()
    if teacher.source != "sample":
        return Sampled(teachers=teacher.teachers or ("*",))
    choice = teacher.choice(place.home)
    # Where validation questions are carved from the same split, the teacher explains those too: their majority answer
    # stands in where there is no label.
    part = config.question_set(dataset.name, "train")
    questions = part.model_copy(update={"part": None, "limit": None}) if part.part and not part.limit else part
    with place.progress("sampling the teacher", "teacher") as report:

        def on_progress(state: SamplingProgress) -> None:
            report(
                state.sampled,
                state.wanted,
                tokens_per_second=state.completion_tokens / max(state.seconds, 1e-9),
                cost=teacher.price.of(state.prompt_tokens, state.completion_tokens),
            )

        taught = teach(
            store, dataset, part.split, questions.ids(store), choice, teacher.seed, place.home / "logs", log.info,
            on_progress, run_id=place.run_id, key=key_of(teacher.key_secret) if teacher.key_secret else None,
        )  # fmt: skip
    made = taught.done or SamplingProgress(wanted=0)
    if taught.done is None:
        log.info("All %s samples are stored already.", f"{taught.plan.samples:,}")
    else:
        log.info("%s samples made in %.0f s.", f"{made.sampled:,}", made.seconds)
    for example, reason in list(made.refused.items())[:3]:
        log.warning("The teacher refused question %s: %s", example, reason)
    return Sampled(
        teachers=teacher.teachers or (choice.identity.model,),
        samples=taught.plan.samples,
        sampled=made.sampled,
        unparsed=made.unparsed,
        prompt_tokens=made.prompt_tokens,
        completion_tokens=made.completion_tokens,
        seconds=made.seconds,
        cost=teacher.price.of(made.prompt_tokens, made.completion_tokens),
    )


@task(name="vote", timeout_seconds=3600, **STEP)
def count_votes(place: Place, rule: VoteRule, config: DatasetConfig) -> VoteSummary:
    """Majority answers, positives and negatives of the training split."""
    summary = vote(place.open_store(), get_dataset(config.name), rule, config.train_split)
    accuracy = summary.majority_accuracy
    get_run_logger().info(
        "Votes on %s examples: %s of %s samples parsed%s.", f"{summary.examples:,}",
        f"{summary.samples - summary.unparsed:,}", f"{summary.samples:,}",
        "" if accuracy is None else f"; one sample right {summary.single_accuracy:.1%}, the majority {accuracy:.1%}",
    )  # fmt: skip
    return summary


@task(name="prepare", **STEP)
def prepare(
    place: Place, dataset: str, rule: VoteRule, parts: Parts, config: TrainingConfig, worker: Worker
) -> Prepared:
    """The training set, and the student before training."""
    prepared = prepare_training(place.home / "trainings", place.open_store(), dataset, rule, parts, config, worker)
    log, long = get_run_logger(), prepared.too_long
    log.info(
        "%s: %s questions, %s positive and %s negative rationales; a student of %s parameters.",
        prepared.name, f"{prepared.questions:,}", f"{prepared.positives:,}", f"{prepared.negatives:,}",
        f"{prepared.parameters:,}",
    )  # fmt: skip
    if long.questions or long.rationales or long.answers:
        log.warning(
            "Too long for the student and left out: %s questions, %s rationales, %s answers (the longest has %s "
            "tokens; examples %s). Raise student.max_input_tokens or student.max_target_tokens.",
            f"{long.questions:,}", f"{long.rationales:,}", f"{long.answers:,}", f"{long.longest:,}",
            ", ".join(long.examples),
        )  # fmt: skip
    return prepared


@task(name="negatives", task_run_name="negatives {t}", **ROUND_STEP)
def make_negatives(place: Place, folder: Path, t: int, worker: Worker) -> NegativesSampled:
    """The student's own negatives of a round."""
    known = (round_folder(folder, t) / NEGATIVES_FILE).is_file()
    with _round_progress(place, folder, t, "negatives") as report:
        made = worker.run(sample_negatives, folder, t, reports="on_progress", on_report=report)
    if made.sampled and not known:
        past = "before training" if made.round_before == INITIAL else f"of round {made.round_before}"
        get_run_logger().info("%s: %s negatives from the student %s.", _round(folder, t), f"{made.sampled:,}", past)
    return made


@task(name="quality", task_run_name="quality {t}", **ROUND_STEP)
def judge_quality(place: Place, folder: Path, t: int, worker: Worker) -> QualityUpdated:
    """The discriminator's update and scores of a round."""
    known = (round_folder(folder, t) / QUALITY_FILE).is_file()
    with _round_progress(place, folder, t, "discriminator") as report:
        done = worker.run(update_quality, folder, t, reports="on_report", on_report=_steps(report))
    if done.steps and not known:
        get_run_logger().info(
            "%s: discriminator trained %d steps; AUC against minority samples %s, against the student's %s.",
            _round(folder, t), done.steps, _figure(done.auc_minority), _figure(done.auc_student),
        )  # fmt: skip
    return done


@task(name="student", task_run_name="student {t}", **ROUND_STEP)
def train_student(place: Place, folder: Path, t: int, worker: Worker) -> RoundTrained:
    """The student's training of a round."""
    with _round_progress(place, folder, t, "training") as report:
        return worker.run(train_round, folder, t, reports="on_report", on_report=_steps(report))


@task(name="evaluate", task_run_name="evaluate {part} {t}", **ROUND_STEP)
def evaluate_student(place: Place, folder: Path, t: int, part: Part, worker: Worker) -> Evaluation:
    """The student's answers to the validation or the test questions."""
    with _round_progress(place, folder, t, part) as report:
        return worker.run(evaluate_round, folder, t, part, reports="on_progress", on_report=report)


# ---- around the steps ----


@contextmanager
def slot(home: Path, threads: int | None) -> Iterator[None]:
    """Holds this machine's GPU, or a share of its cores, so that two runs do not load their models onto it at once.

    With a Prefect server it is a global concurrency limit (`prefect gcl ls` shows it, and it can be changed there).
    Without one it is a locked file, which a process gives back however it dies; Prefect's temporary server never takes
    a dead run's slot back.

    Raises:
        UsageError: QCRD_MACHINE is no name.
    """
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0") if _has_gpu() else None
    cores = len(os.sched_getaffinity(0))
    name = slot_name(gpu)
    limit = 1 if gpu is not None else max(1, cores // (threads or cores))
    if not PREFECT_API_URL.value():
        with _locked_slot(home / "slots", name, limit):
            yield
        return
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):  # then it stays as somebody set it
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=limit))
    # A short lease: a run that is killed with -9 cannot give its slot back, and the next one should not wait long. One
    # that cannot be renewed, because the server is being restarted, must not end a training.
    with concurrency(name, occupy=1, strict=True, lease_duration=LEASE_S, raise_on_lease_renewal_failure=False):
        yield


def slot_name(gpu: str | None) -> str:
    """What this machine's slots are called: "qcrd-cpu" or "qcrd-gpu-0", with "-NAME" where QCRD_MACHINE is NAME.

    A host name would tell containers on one machine apart, which share what the slots are for.

    Raises:
        UsageError: QCRD_MACHINE is no name.
    """
    machine = os.environ.get(MACHINE_VARIABLE, "")
    if not re.fullmatch(r"[A-Za-z0-9._-]*", machine):
        raise UsageError(f"{MACHINE_VARIABLE} takes letters, digits and . _ - only, not {machine!r}.")
    return ("qcrd-cpu" if gpu is None else f"qcrd-gpu-{gpu}") + (f"-{machine}" if machine else "")


@contextmanager
def _locked_slot(folder: Path, name: str, limit: int) -> Iterator[None]:
    """One of `limit` files, locked; waits until one is free."""
    folder.mkdir(parents=True, exist_ok=True)
    said = False
    while True:
        for number in range(limit):
            with (folder / f"{name}-{number}").open("w") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield
                return
        if not said:
            get_run_logger().info("Waiting: another training holds %s.", name)
            said = True
        refuse_if_stopping()
        time.sleep(0.5)


def results(futures: list[PrefectFuture[Any]]) -> list[Any]:
    """The results of submitted tasks. Waits in short turns, between which Ctrl-C gets through; waiting for a result
    blocks it."""
    for future in futures:
        while not future.state.is_final():
            future.wait(timeout=0.5)
    return [future.result() for future in futures]


def _has_gpu() -> bool:
    return Path("/dev/nvidia0").exists()


def _round_progress(place: Place, folder: Path, t: int, step: str) -> AbstractContextManager[Progress]:
    """Reports of a round's step."""
    method = read_spec(folder).config.method.name
    return place.progress(f"{method} round {t}: {step}", f"{method}-{step}")


def _steps(report: Callable[..., None]) -> Callable[[dict[str, float]], None]:
    """Turns the trainer's reports into progress."""
    return lambda line: report(int(line["step_of_round"]), int(line["steps_of_round"]), f"loss {line['loss']:.3f}")


def _is_stored(store: Store, dataset: str, split: str) -> bool:
    """Whether the store holds questions of a split."""
    return bool(store.parts(EXAMPLES, {"dataset": dataset, "split": split}))


def _round(folder: Path, t: int) -> str:
    """What a round is called in lines for people."""
    return f"{read_spec(folder).config.method.name} round {t}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
