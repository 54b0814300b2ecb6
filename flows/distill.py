"""The flow `distill`: from questions to a registered student.

    dataset -> examples -> teacher samples -> votes -> [ negatives -> discriminator -> student -> evaluation ] x rounds
    -> best round -> registered model -> champion?

What was done before is found, not done again. After a crash, or when there are new questions, run the same
configuration to go on from there.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows.config.distill import DistillConfig
from flows.nodes import other_nodes
from flows.prefect import report
from flows.prefect.own_server import has_configured_server
from flows.prefect.verdict import show_verdict
from flows.results import DistillResult, MethodResult, distill_result, method_result, registered_result
from flows.runs import recorded_run
from models.methods import MethodConfig
from models.precision import gpus_for
from storage.datasets.definition import LABEL_SETS
from storage.datasets.registry import get_dataset
from storage.errors import UsageError
from storage.vote_summary import VoteSummary
from storage.votes import VoteRule
from tasks.questions.sets import QuestionSet
from tasks.running.slots import slot
from tasks.running.worker import Worker
from tasks.running.workspace import Workspace
from tasks.steps import choosing, drift, proxy, questions, registry, rounds, teacher, variants, votes
from tasks.steps.teacher import Sampled
from tasks.tracking.client import open_tracking
from tasks.tracking.run import TrainingRun
from tasks.training.folder import Training
from tasks.training.prepare import refuse_vain
from tasks.training.rounds import best_round, is_over, prune
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
        home: the state folder: store, trainings and, if no servers are configured, MLflow's and Prefect's state.
        resume: id of a run that ended early, to go on with; it keeps the configuration it began with.
    """
    _refuse_own_samples_of_sets(config)
    with recorded_run(home, config, resume) as (workspace, config, results):
        if config.teacher.source == "import":
            questions.import_recordings(workspace, config.dataset, config.teacher)
        stored = questions.store_questions(workspace, config.dataset)
        parts = Parts.of(config.dataset, stored.dataset)
        for method in config.methods():
            training = config.training(method, workspace.home)
            refuse_vain(workspace.open_store(), config.dataset.name, parts, training)
        if config.teacher.needs_lab():
            teacher.build_lab_teacher(workspace)
        further = []
        if config.variants.kinds:
            further = variants.write_variants(
                workspace, config.dataset, config.variants, config.teacher, config.registry
            )
        budget = config.teacher.budget
        if budget is not None:
            choosing.choose_questions(workspace, config.dataset, config.teacher, budget, config.registry)
        sampled = _ask(workspace, config, further)
        rule = VoteRule(dataset=stored.dataset, teachers=sampled.teachers, **config.votes.model_dump())
        summary = _vote(workspace, config, rule)
        report.show_votes(rule, summary, sampled)
        report.show_teacher(workspace, rule, config.dataset.train_split)
        further += questions.passed_on(workspace, config.dataset)
        further = votes.voted_further(workspace, rule, config.dataset, further)
        drift.watch_drift(workspace, rule, config.dataset, config.drift)
        parts = replace(parts, sampled_only=budget is not None, further=tuple(further))
        rounds.warn_of_emulation(config.student, config.optimisation)
        trained = _results([train.submit(workspace, config, rule, parts, method) for method in config.methods()])
        registered = None
        if config.registry.register_model:
            first = trained[0]
            lineage = report.prefect_tags()
            challenger = registry.register(workspace, first.folder, first.logged_round(), config.registry, lineage)
            verdict = registry.gate(workspace, first.folder, challenger, config.registry)
            show_verdict(challenger, verdict)
            registered = registered_result(challenger, verdict)
        results.append(distill_result(workspace, parts, sampled, summary, trained, registered))
        report.show_result(results[0])
    return results[0]


def _refuse_own_samples_of_sets(config: DistillConfig) -> None:
    """Own samples are judged by the answer that they announce.

    Raises:
        UsageError: answers are sets of labels, which a rationale without its closing statement does not announce.
    """
    if config.own.samples and config.method.name == "qcrd":
        dataset = get_dataset(config.dataset.name)
        if dataset.answer_kind == LABEL_SETS:
            raise UsageError(
                f"own.samples is {config.own.samples}, but the answers of {dataset.name} are sets of labels, which a "
                "student's rationale does not announce, so none of its samples could be used: take own.samples=0."
            )


def _ask(workspace: Workspace, config: DistillConfig, further: list[QuestionSet]) -> Sampled:
    """Asks the teacher the training questions and further ones; the outcome of all together."""
    ask = teacher.ask_teacher
    if config.teacher.shards > 1:
        from flows.shards import ask_in_shards as ask  # imports the openai package, which takes a second
    sampled: Sampled = ask(workspace, config.dataset, config.teacher)
    for one in further:
        sampled = sampled.with_more(ask(workspace, config.dataset.of_further(one.split), config.teacher))
    return sampled


def _vote(workspace: Workspace, config: DistillConfig, rule: VoteRule) -> VoteSummary:
    if config.teacher.shards_on is None:
        return votes.count_votes(workspace, rule, config.dataset)
    from flows.shards import vote_in_shards

    return vote_in_shards(workspace, rule, config.dataset, config.teacher)


@task(name="method", task_run_name="{method.name}", cache_policy=NO_CACHE)
def train(
    workspace: Workspace, config: DistillConfig, rule: VoteRule, parts: Parts, method: MethodConfig
) -> MethodResult:
    """All rounds of one method: negatives -> discriminator -> student -> evaluation; then the test questions, once."""
    settings, threads, log = config.training(method, workspace.home), config.rounds.threads, get_run_logger()
    with Worker(threads) as worker:
        prepared = rounds.prepare(workspace, config.dataset.name, rule, parts, settings, worker)
    folder, training = prepared.folder, Training(prepared.folder)

    def waiting() -> None:
        log.info("%s: another run trains it; waiting, then taking what it has made.", prepared.name)

    with (
        training.held(prepared.spec, waiting),
        slot(
            workspace.home, threads, on_server=has_configured_server(), gpus=gpus_for(config.optimisation),
            processes=settings.rounds.processes,
        ) as gpus,
        other_nodes(training, settings.rounds),
        Worker(threads, gpus) as worker,
    ):  # fmt: skip
        table = report.RoundsTable(prepared)
        tags = report.prefect_tags() | report.prefect_note()
        run = TrainingRun(open_tracking(workspace.home), prepared, workspace.run_id, tags)
        with run.measured():
            for t in range(settings.rounds.rounds):
                rounds.make_negatives(workspace, folder, t, worker)
                quality = rounds.judge_quality(workspace, folder, t, worker)
                rounds.train_student(workspace, folder, t, worker)
                result = rounds.evaluate_student(workspace, folder, t, "validation", worker)
                run.round(t, quality, result)
                log.info(report.round_line(method.name, result))
                proxy.watch_proxy(folder, t)
                table.show()
                prune(training)
                if is_over(training.evaluations()[: t + 1], settings.rounds):
                    break
            best = best_round(training.evaluations())
            if training.chooses_answers:
                rounds.calibrate_student(workspace, folder, best, worker)
            test = rounds.evaluate_student(workspace, folder, best, "test", worker) if parts.test else None
            logged = run.finish(best, test)
    table.show(over=True)
    report.show_method(workspace, prepared, best, run.url)
    return method_result(prepared, best, test, logged, run.url)


def _results(futures: list[PrefectFuture[Any]]) -> list[Any]:
    """The results of submitted tasks. Waits in short turns: waiting for a result would block Ctrl-C."""
    for future in futures:
        while not future.state.is_final():
            future.wait(timeout=0.5)
    return [future.result() for future in futures]
