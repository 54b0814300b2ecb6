"""The flow `compare`: methods over seeds, on the same questions and samples.

    base configuration -> questions, samples, votes, once -> every variant x seed x fold x share, each a training
    -> [ the baseline again, for as long as each slower variant took ] -> paired differences -> [ a judge ] -> report

Every training has a content id, so what is there is found: a comparison that was stopped, or that gets another seed or
variant, goes on with the same command.
"""

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.futures import PrefectFuture

from flows.comparison import ComparisonResult, Trained, comparison, pairs_to_judge
from flows.config.compare import Cell, CompareConfig
from flows.config.distill import DistillConfig
from flows.distill import train
from flows.home import Home
from flows.report.publish import publish
from flows.results import MethodResult
from models.precision import gpus_for
from storage.ids import content_id
from storage.store import Store
from storage.votes import VoteRule
from tasks.comparing.answers import questions_of, told_by
from tasks.comparing.preferences import Preferences
from tasks.comparing.scores import scores_by_rightness
from tasks.running.slots import places
from tasks.running.worker import stopping_with_us
from tasks.running.workspace import Workspace
from tasks.steps import comparing, questions, rounds, teacher, votes
from tasks.training.folder import Training
from tasks.training.prepare import refuse_vain
from tasks.training.spec import Parts

SAME_TIME = 1.05
"""A variant that takes at most so many times the baseline's seconds is compared with the baseline as it is."""


@flow(name="compare", flow_run_name="{config.base}: {config.baseline} and others")
def compare(
    config: CompareConfig, base: dict[str, Any], home: Path = Path(".qcrd"), report: Path | None = None
) -> ComparisonResult:
    """Trains each variant with several seeds on the same data, and says which is better, and how surely.

    Args:
        config: what is compared.
        base: the content of `config.base`.
        home: the state folder.
        report: the HTML file to write; None names it after the run, under <home>/reports.
    """
    at = Home(home)
    workspace = Workspace(home=home, store=at.store_root, run_id=content_id("compare", config.model_dump(mode="json")))
    distillations = {cell: config.distillation(cell, base) for cell in config.all_cells()}
    rules = _prepare(workspace, distillations.values())
    with stopping_with_us():
        return _compared(workspace, config, base, distillations, rules, report)


def _compared(
    workspace: Workspace,
    config: CompareConfig,
    base: dict[str, Any],
    distillations: Mapping[Cell, DistillConfig],
    rules: dict[str, VoteRule],
    report: Path | None,
) -> ComparisonResult:
    trained = _train(workspace, config, distillations, rules)
    against = dict.fromkeys(config.variants, None) if config.equal == "steps" else _equal_rounds(config, trained)
    longer = {
        cell: config.distillation(cell, base)
        for rounds_ in sorted({rounds_ for rounds_ in against.values() if rounds_ is not None})
        for cell in config.cells(config.baseline, rounds_)
    }
    trained |= _train(workspace, config, longer, rules)
    found = list(trained.values())
    result = comparison(config, found, against, _judge(workspace, config, found, against))
    return publish(
        workspace, config, found, result, report or Home(workspace.home).reports / f"{workspace.run_id}.html"
    )


def _prepare(workspace: Workspace, distillations: Iterable[DistillConfig]) -> dict[str, VoteRule]:
    """Questions, samples and votes of all configurations; once for those that agree on them."""
    one_of: dict[str, DistillConfig] = {}
    stored: dict[str, str] = {}
    for config in distillations:
        key = _data_of(config)
        if key not in stored:
            if config.teacher.source == "import":
                questions.import_recordings(workspace, config.dataset, config.teacher)
            one_of[key], stored[key] = config, questions.store_questions(workspace, config.dataset).dataset
        training = config.training(config.method, workspace.home)
        refuse_vain(workspace.open_store(), config.dataset.name, Parts.of(config.dataset, stored[key]), training)
    rules: dict[str, VoteRule] = {}
    for key, config in one_of.items():
        if config.teacher.needs_lab():
            teacher.build_lab_teacher(workspace)
        sampled = teacher.ask_teacher(workspace, config.dataset, config.teacher)
        rules[key] = VoteRule(dataset=stored[key], teachers=sampled.teachers, **config.votes.model_dump())
        votes.count_votes(workspace, rules[key], config.dataset)
        rounds.warn_of_emulation(config.student, config.optimisation)
    return rules


def _data_of(config: DistillConfig) -> str:
    dataset = config.dataset.model_dump_json(exclude={"fold"})
    return dataset + config.teacher.model_dump_json() + config.votes.model_dump_json()


def _train(
    workspace: Workspace, config: CompareConfig, distillations: Mapping[Cell, DistillConfig], rules: dict[str, VoteRule]
) -> dict[Cell, Trained]:
    """Trains all cells, some at a time, and reads what they answered. A cell that fails ends the flow once the others
    are done."""
    log, done = get_run_logger(), 0
    futures: dict[Cell, PrefectFuture[Any]] = {}
    for cell, distillation in distillations.items():
        rule = rules[_data_of(distillation)]
        parts = Parts.of(distillation.dataset, rule.dataset)
        one = train.with_options(task_run_name=str(cell))
        futures[cell] = one.submit(workspace, distillation, rule, parts, distillation.method)
    waiting = dict(futures)
    while waiting:
        for cell, future in list(waiting.items()):
            future.wait(timeout=0.5)  # in short turns: waiting for a result would block Ctrl-C
            if future.state.is_final():
                del waiting[cell]
                done += 1
                log.info("%d of %d trainings: %s", done, len(futures), cell)
    store = workspace.open_store()
    results = {cell: future.result() for cell, future in futures.items()}
    return {cell: _read(store, config, cell, result) for cell, result in results.items()}


def _read(store: Store, config: CompareConfig, cell: Cell, result: MethodResult) -> Trained:
    training = Training(result.folder)
    return Trained(cell, result, told_by(store, training, config.part), scores_by_rightness(store, training))


def _judge(
    workspace: Workspace, config: CompareConfig, trained: list[Trained], against: Mapping[str, int | None]
) -> dict[str, Preferences]:
    """Of each variant how often its rationales are preferred to the baseline's; empty without a judge."""
    found: dict[str, Preferences] = {}
    for variant in config.variants if config.judge else ():
        if variant == config.baseline or config.judge is None:
            continue
        pairs = pairs_to_judge(config, trained, against, variant, config.judge.questions)
        if not pairs:
            get_run_logger().warning("%s: nothing to judge, it or the baseline writes no rationales.", variant)
            continue
        folder = next(one.result.folder for one in trained if one.cell.variant == variant)
        partition = questions_of(Training(folder).spec, config.part).partition
        found[variant] = comparing.judge(workspace, variant, partition, pairs, config.judge)
    return found


def _equal_rounds(config: CompareConfig, trained: Mapping[Cell, Trained]) -> dict[str, int | None]:
    """For each variant the rounds that the baseline makes in as many seconds; None where its own take as long."""
    seconds, rounds_ = {}, {}
    for variant in config.variants:
        own = [one.result for cell, one in trained.items() if cell.variant == variant]
        seconds[variant] = statistics.median(result.seconds for result in own)
        rounds_[variant] = max(len(result.rounds) for result in own)
    found: dict[str, int | None] = {}
    for variant in config.variants:
        ratio = seconds[variant] / seconds[config.baseline]
        base = rounds_[config.baseline]
        found[variant] = max(base + 1, round(base * ratio)) if ratio > SAME_TIME else None
    return found


def side_by_side(config: CompareConfig, base: dict[str, Any]) -> int:
    """How many trainings at once: what is configured, or as many as have slots (`tasks.running.slots`)."""
    if config.side_by_side:
        return config.side_by_side
    one = config.distillation(next(config.cells(config.baseline)), base)
    return places(one.rounds.threads, len(gpus_for(one.optimisation)), one.rounds.processes)
