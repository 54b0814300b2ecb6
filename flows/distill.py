"""The flow `distill`: from questions to a registered student.

    dataset -> examples -> teacher samples -> votes -> [ negatives -> discriminator -> student -> evaluation ] x rounds
    -> best round -> registered model -> champion?

Everything that has been done before is found, not done again: run the same configuration after a crash, or with new
questions, and it goes on from there.
"""

from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows.config.distill import DistillConfig
from flows.prefect import report
from flows.prefect.verdict import show_verdict
from flows.results import DistillResult, MethodResult, RegisteredResult
from flows.runs import recorded_run
from models.methods import MethodConfig
from storage.votes import VoteRule
from tasks.running.worker import Worker
from tasks.steps import rounds as steps
from tasks.steps.drift import watch_drift
from tasks.steps.rounds import Place
from tasks.tracking.challenger import judge_registered, register_best
from tasks.tracking.client import open_tracking
from tasks.tracking.registry import Registered
from tasks.tracking.run import Story
from tasks.training.rounds import best_round, evaluations, is_over, prune
from tasks.training.spec import Parts


def run_name() -> str:
    """What Prefect's UI calls a run: dataset, student and method."""
    config = DistillConfig.model_validate(flow_run.parameters["config"])
    return f"{Path(config.dataset.name).stem} {Path(config.student.model).name} {config.method.name}"


@flow(name="distill", flow_run_name=run_name, task_runner=ThreadPoolTaskRunner(max_workers=16))  # type: ignore[arg-type]
def distill(config: DistillConfig, home: Path = Path(".qcrd"), resume: str | None = None) -> DistillResult:
    """Teaches a small model to answer and to explain, from the samples of a large one.

    Args:
        config: what to do, and how; `qcrd keys` explains it in a terminal.
        home: the state folder: store, trainings, and, where no servers are configured, MLflow's and Prefect's state.
        resume: id of a run that ended early, to go on with; the configuration it began with is taken.
    """
    with recorded_run(home, config, resume) as (place, config, results):
        if config.teacher.source == "import":
            steps.import_recordings(place, config.dataset, config.teacher)
        questions = steps.store_questions(place, config.dataset)
        if config.teacher.needs_lab():
            steps.build_lab_teacher(place)
        sampled = steps.ask_teacher(place, config.dataset, config.teacher)
        rule = VoteRule(dataset=questions.dataset, teachers=sampled.teachers, **config.votes.model_dump())
        votes = steps.count_votes(place, rule, config.dataset)
        report.show_votes(rule, votes, sampled)
        report.show_teacher(place, rule, config.dataset.train_split)
        watch_drift(place, rule, config.dataset, config.drift)
        parts = Parts.of(config.dataset, questions.dataset)
        trainings = [train.submit(place, config, rule, parts, method) for method in config.methods()]
        trained = steps.results(trainings)
        verdict = None
        if config.registry.register_model:
            verdict = gate(place, config, trained[0], register(place, config, trained[0]))
        results.append(report.show_result(place, parts, sampled, votes, trained, verdict))
    return results[0]


@task(name="method", task_run_name="{method.name}", cache_policy=NO_CACHE)
def train(place: Place, config: DistillConfig, rule: VoteRule, parts: Parts, method: MethodConfig) -> MethodResult:
    """All rounds of one method: negatives -> discriminator -> student -> evaluation; then the test questions, once."""
    training, threads = config.training(method, place.home), config.rounds.threads
    with Worker(threads) as worker:
        prepared = steps.prepare(place, config.dataset.name, rule, parts, training, worker)
        folder = prepared.folder
        table = report.RoundsTable(method.name, prepared, config.rounds.rounds)
        tags = report.prefect_tags() | report.prefect_note()
        story = Story(open_tracking(place.home), prepared, place.run_id, tags)
        with story.measured(), steps.slot(place.home, threads):
            for t in range(config.rounds.rounds):
                steps.make_negatives(place, folder, t, worker)
                quality = steps.judge_quality(place, folder, t, worker)
                steps.train_student(place, folder, t, worker)
                result = steps.evaluate_student(place, folder, t, "validation", worker)
                story.round(t, quality, result)
                get_run_logger().info(report.round_line(method.name, result))
                table.show()
                prune(folder)
                if is_over(evaluations(folder)[: t + 1], config.rounds):
                    break
            best = best_round(evaluations(folder))
            test = steps.evaluate_student(place, folder, best, "test", worker) if parts.test else None
            logged = story.finish(best, test)
    table.show(over=True)
    return report.show_method(place, method.name, prepared, best, test, logged, story.url)


@task(name="register", **steps.STEP, cache_policy=NO_CACHE)
def register(place: Place, config: DistillConfig, result: MethodResult) -> Registered:
    """The best student becomes a version of the registered model."""
    lineage = {"run_id": place.run_id, **report.prefect_tags()}
    return register_best(open_tracking(place.home), result.folder, result.logged_round(), config.registry, lineage)


@task(name="gate", **steps.STEP, cache_policy=NO_CACHE)
def gate(place: Place, config: DistillConfig, result: MethodResult, challenger: Registered) -> RegisteredResult:
    """The challenger becomes champion if it is better than the champion on the same test questions."""
    verdict = judge_registered(open_tracking(place.home), result.folder, challenger, config.registry)
    get_run_logger().info("%s version %s: %s", challenger.name, challenger.version, verdict.reason)
    show_verdict(challenger, verdict)
    return RegisteredResult(
        name=challenger.name, version=challenger.version, champion=verdict.promoted, reason=verdict.reason
    )
