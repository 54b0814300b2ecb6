"""The flow `compare`: methods over seeds, on the same questions and samples.

    base configuration -> questions, samples, votes, once -> every variant x seed x fold x share, each a training
    -> [ the baseline again, for as long as each slower variant took ] -> paired differences

Every training has a content id, so what is there is found: a comparison that was stopped, or that gets another seed or
variant, goes on with the same command.
"""

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.futures import PrefectFuture

from flows.comparison import ComparisonResult, Trained, comparison
from flows.config.compare import Cell, CompareConfig
from flows.config.distill import DistillConfig
from flows.distill import train
from flows.home import Home
from flows.results import MethodResult
from storage.ids import content_id
from storage.store import Store
from storage.votes import VoteRule
from tasks.comparing.answers import told_by
from tasks.running.slots import places
from tasks.running.worker import stopping_with_us
from tasks.running.workspace import Workspace
from tasks.steps import questions, rounds, teacher, votes
from tasks.training.folder import Training
from tasks.training.spec import Parts

SAME_TIME = 1.05
"""A variant that takes at most so many times the baseline's seconds is compared with the baseline as it is."""


@flow(name="compare", flow_run_name="{config.base}: {config.baseline} and others")
def compare(config: CompareConfig, base: dict[str, Any], home: Path = Path(".qcrd")) -> ComparisonResult:
    """Trains each variant with several seeds on the same data, and says which is better, and how surely.

    Args:
        config: what is compared.
        base: the content of `config.base`.
        home: the state folder.
    """
    at = Home(home)
    workspace = Workspace(home=home, store=at.store_root, run_id=content_id("compare", config.model_dump(mode="json")))
    cells = [cell for variant in config.variants for cell in config.cells(variant)]
    distillations = {cell: config.distillation(cell, base) for cell in cells}
    rules = _prepare(workspace, distillations.values())
    with stopping_with_us():
        return _compared(workspace, config, base, distillations, rules)


def _compared(
    workspace: Workspace,
    config: CompareConfig,
    base: dict[str, Any],
    distillations: Mapping[Cell, DistillConfig],
    rules: dict[str, VoteRule],
) -> ComparisonResult:
    trained = _train(workspace, config, distillations, rules)
    against = dict.fromkeys(config.variants, None) if config.equal == "steps" else _equal_rounds(config, trained)
    longer = {
        cell: config.distillation(cell, base)
        for rounds_ in sorted({rounds_ for rounds_ in against.values() if rounds_ is not None})
        for cell in config.cells(config.baseline, rounds_)
    }
    trained |= _train(workspace, config, longer, rules)
    return comparison(config, list(trained.values()), against)


def _prepare(workspace: Workspace, distillations: Iterable[DistillConfig]) -> dict[str, VoteRule]:
    """Questions, samples and votes of all configurations; once for those that agree on them."""
    rules: dict[str, VoteRule] = {}
    for config in distillations:
        key = _data_of(config)
        if key in rules:
            continue
        if config.teacher.source == "import":
            questions.import_recordings(workspace, config.dataset, config.teacher)
        stored = questions.store_questions(workspace, config.dataset)
        if config.teacher.needs_lab():
            teacher.build_lab_teacher(workspace)
        sampled = teacher.ask_teacher(workspace, config.dataset, config.teacher)
        rules[key] = VoteRule(dataset=stored.dataset, teachers=sampled.teachers, **config.votes.model_dump())
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
    return Trained(cell, result, told_by(store, Training(result.folder), config.part))


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
    threads = config.distillation(next(config.cells(config.baseline)), base).rounds.threads
    return places(threads)
