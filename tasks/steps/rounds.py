"""The steps of a training: prepare, then in every round negatives, discriminator, student, evaluation.

Each wraps a plain function of `tasks.training` and adds what a run needs: a worker process, progress, a log line. If
the training's folder says that a step is done already, no process is started.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from prefect import get_run_logger, task

from models.configs import OptimisationConfig, StudentConfig
from models.precision import decided_precision, emulated_settings, emulation_factor, emulation_warning, trains_on_gpu
from storage.votes import VoteRule
from tasks.questions.sets import Part
from tasks.running.progress import Progress
from tasks.running.worker import Worker
from tasks.running.workspace import Workspace
from tasks.steps.retries import STEP
from tasks.training.folder import TRAININGS, Training
from tasks.training.in_worker import calibrate, evaluate_round, sample_negatives, train_round, update_quality
from tasks.training.outcomes import Calibrated, Evaluation, NegativesSampled, Prepared, QualityUpdated, RoundTrained
from tasks.training.prepare import prepare_training
from tasks.training.spec import INITIAL, Parts, TrainingConfig


def warn_of_emulation(student: StudentConfig, optimisation: OptimisationConfig) -> None:
    """Warns, once per run, if students are to be trained in bfloat16 on a processor that only emulates it."""
    asked = {"optimisation.precision": optimisation.precision, "student.dtype": student.dtype}
    if not trains_on_gpu(optimisation) and (emulated := emulated_settings(asked)):
        with Worker() as worker:
            factor = worker.run(emulation_factor)  # needs torch, which the run's own process does not load
        get_run_logger().warning(emulation_warning(emulated, factor))


@task(name="prepare", **STEP)
def prepare(
    workspace: Workspace, dataset: str, rule: VoteRule, parts: Parts, config: TrainingConfig, worker: Worker
) -> Prepared:
    """Prepares the training set and the student before training."""
    prepared = prepare_training(
        workspace.home / TRAININGS, workspace.open_store(), dataset, rule, parts, config, worker
    )
    log, long = get_run_logger(), prepared.too_long
    log.info(
        "%s: %s questions, %s positive and %s negative rationales; a student of %s parameters.",
        prepared.name, f"{prepared.questions:,}", f"{prepared.positives:,}", f"{prepared.negatives:,}",
        f"{prepared.parameters:,}",
    )  # fmt: skip
    if config.method.abstain_below is not None:
        log.log(
            logging.INFO if prepared.refusals else logging.WARNING,
            "%s: %s of these questions teach it to abstain; on so many the teacher's majority has less than %s of the "
            "votes (method.abstain_below).",
            prepared.name, f"{prepared.refusals:,}", f"{config.method.abstain_below:g}",
        )  # fmt: skip
    precision = prepared.spec.config.optimisation.precision
    if config.optimisation.precision == "auto" and precision != decided_precision(config.optimisation):
        log.info("%s goes on in %s, in which another machine began it.", prepared.name, precision)
    if long.questions or long.rationales or long.answers:
        log.warning(
            "Too long for the student and left out: %s questions, %s rationales, %s answers (the longest has %s "
            "tokens; examples %s). Raise student.max_input_tokens or student.max_target_tokens.",
            f"{long.questions:,}", f"{long.rationales:,}", f"{long.answers:,}", f"{long.longest:,}",
            ", ".join(long.examples),
        )  # fmt: skip
    return prepared


@task(name="negatives", task_run_name="negatives {t}", **STEP)
def make_negatives(workspace: Workspace, folder: Path, t: int, worker: Worker) -> NegativesSampled:
    """Samples the student's own negatives, and what else it adds, for a round."""
    training = Training(folder)
    if known := training.outcome(NegativesSampled, t):
        return known
    with _progress(workspace, training, t, "negatives") as report:
        made = worker.run(sample_negatives, folder, t, reports="on_progress", on_report=report)
    if made.own_samples:
        get_run_logger().info(
            "%s: %s of the student's %s own samples are right.", _round(training, t), f"{made.own_right:,}",
            f"{made.own_samples:,}",
        )  # fmt: skip
    elif made.sampled:
        past = "before training" if made.round_before == INITIAL else f"of round {made.round_before}"
        get_run_logger().info("%s: %s negatives from the student %s.", _round(training, t), f"{made.sampled:,}", past)
    return made


@task(name="quality", task_run_name="quality {t}", **STEP)
def judge_quality(workspace: Workspace, folder: Path, t: int, worker: Worker) -> QualityUpdated:
    """Updates the discriminator for a round, and scores the rationales."""
    training = Training(folder)
    if known := training.outcome(QualityUpdated, t):
        return known
    with _progress(workspace, training, t, "discriminator") as report:
        done = worker.run(update_quality, folder, t, reports="on_report", on_report=_steps(report))
    if done.steps:
        get_run_logger().info(
            "%s: discriminator trained %d steps; AUC against minority samples %s, against the student's %s.",
            _round(training, t), done.steps, _figure(done.auc_minority), _figure(done.auc_student),
        )  # fmt: skip
    return done


@task(name="student", task_run_name="student {t}", **STEP)
def train_student(workspace: Workspace, folder: Path, t: int, worker: Worker) -> RoundTrained:
    """Trains the student for one round."""
    training = Training(folder)
    if known := training.outcome(RoundTrained, t):
        return known
    with _progress(workspace, training, t, "training") as report:
        return worker.run(train_round, folder, t, reports="on_report", on_report=_steps(report))


@task(name="calibrate", task_run_name="calibrate {t}", **STEP)
def calibrate_student(workspace: Workspace, folder: Path, t: int, worker: Worker) -> Calibrated:
    """Fits how the student chooses its answers to the validation questions."""
    training = Training(folder)
    if known := training.outcome(Calibrated, t):
        return known
    with _progress(workspace, training, t, "calibration") as report:
        done = worker.run(calibrate, folder, t, reports="on_progress", on_report=report)
    if promise := done.promise:
        log = get_run_logger()
        (log.info if promise.certified else log.warning)("%s: %s", _round(training, t), promise.told)
    return done


@task(name="evaluate", task_run_name="evaluate {part} {t}", **STEP)
def evaluate_student(workspace: Workspace, folder: Path, t: int, part: Part, worker: Worker) -> Evaluation:
    """Lets the student answer the validation or the test questions."""
    training = Training(folder)
    if known := training.evaluation(t, part):
        return known
    with _progress(workspace, training, t, part) as report:
        return worker.run(evaluate_round, folder, t, part, reports="on_progress", on_report=report)


def _progress(workspace: Workspace, training: Training, t: int, step: str) -> AbstractContextManager[Progress]:
    """Progress reports for a step of a round."""
    method = training.spec.config.method.name
    return workspace.progress(f"{method} round {t}: {step}", f"{method}-{step}")


def _steps(report: Callable[..., None]) -> Callable[[dict[str, float]], None]:
    """Turns the trainer's reports into progress."""
    return lambda line: report(int(line["step_of_round"]), int(line["steps_of_round"]), f"loss {line['loss']:.3f}")


def _round(training: Training, t: int) -> str:
    """A round's name in the log."""
    return f"{training.spec.config.method.name} round {t}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
