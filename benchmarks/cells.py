"""The trainings of a comparison, on a machine that has a GPU but neither Prefect nor MLflow nor a network.

    python -m benchmarks.cells plan FILE ... --home HOME     # here: questions, samples and votes; HOME/cells.json
    python -m benchmarks.cells train --home HOME --side-by-side 14 --seconds 500 --out OUT.tar    # there
    tar -xf OUT.tar -C HOME && qcrd compare FILE --home HOME                                      # here again

`train` needs torch, transformers, accelerate, DuckDB, pyarrow and pydantic, HOME, and the models that FILE names, under
the same paths. It trains seed by seed, so what is not done in time are the last seeds; `qcrd compare` then trains those
itself, or has fewer seeds. OUT.tar has rows, outcomes and figures, and no weights.
"""

import argparse
import hashlib
import json
import sys
import tarfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import chain, zip_longest
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from flows.config.compare import load_comparison
from flows.config.distill import DistillConfig
from storage.store import Store
from storage.votes import VoteRule
from tasks.training.folder import TRAININGS, Training
from tasks.training.prepare import prepare_training
from tasks.training.rounds import best_round, is_over, prune
from tasks.training.spec import Parts

PLAN = "cells.json"
LEFT_THERE = ("*.safetensors", "*.lock", "tokenizer.json")
"""Files that OUT.tar has not: `qcrd compare` reads none of them."""


def plan(files: list[Path], home: Path) -> int:
    """Prepares the data of comparisons and writes what is to be trained; the number of trainings."""
    from prefect import flow  # only here: the other machine has none

    from flows.compare import _data_of, _prepare
    from flows.home import Home
    from tasks.running.workspace import Workspace

    comparisons = []
    for file in files:
        config, base = load_comparison(file)
        comparisons.append({cell: config.distillation(cell, base) for cell in config.all_cells()})

    @flow(name="plan")
    def prepare_all() -> dict[str, VoteRule]:
        workspace = Workspace(home=home, store=Home(home).store_root, run_id="cells")
        return _prepare(workspace, chain(*(cells.values() for cells in comparisons)))

    rules = prepare_all()
    # All comparisons' first trainings first: a machine that is taken back early has some of each.
    mixed = filter(None, chain(*zip_longest(*(
        [(f"{file.stem}: {cell}", one) for cell, one in cells.items()]
        for file, cells in zip(files, comparisons, strict=True)
    ))))  # fmt: skip
    listed = [
        {"name": name, "config": one.model_dump(mode="json"), "rule": rules[_data_of(one)].model_dump(mode="json")}
        for name, one in mixed
    ]
    there = sorted(str(file.relative_to(home)) for file in (home / "store").rglob("*.parquet"))
    (home / PLAN).write_text(json.dumps({"cells": listed, "there": there}), encoding="utf-8")
    return len(listed)


def train_whole(home: Path, store: Store, config: DistillConfig, rule: VoteRule, parts: Parts) -> Training:
    """Trains one configuration to its end, or finds it trained: all rounds, then the test questions, if there are
    any."""
    settings = config.training(config.method, home)
    prepared = prepare_training(home / TRAININGS, store, config.dataset.name, rule, parts, settings)
    folder, training = prepared.folder, Training(prepared.folder)
    from tasks.training import in_worker

    for t in range(settings.rounds.rounds):
        in_worker.sample_negatives(folder, t)
        in_worker.update_quality(folder, t)
        in_worker.train_round(folder, t)
        in_worker.evaluate_round(folder, t, "validation")
        prune(training)
        if is_over(training.evaluations()[: t + 1], settings.rounds):
            break
    best = best_round(training.evaluations())
    if training.chooses_answers:
        in_worker.calibrate(folder, best)
    if parts.test:
        in_worker.evaluate_round(folder, best, "test")
    return training


def train_cell(home: Path, cell: dict[str, Any]) -> str:
    """Trains one cell to its end; what it came to, in a line."""
    began = time.monotonic()
    config, rule = DistillConfig.model_validate(cell["config"]), VoteRule.model_validate(cell["rule"])
    training = train_whole(home, Store(home / "store"), config, rule, Parts.of(config.dataset, rule.dataset))
    rounds = " ".join(f"{one.accuracy:.3f}/{one.explanation_accuracy or 0:.3f}" for one in training.evaluations())
    return f"{cell['name']}: {time.monotonic() - began:.0f} s; answers/explanations on validation by round: {rounds}"


def train(home: Path, side_by_side: int, seconds: float, only: str) -> int:
    """Trains what is planned, as far as the time goes; how many trainings failed."""
    began, failed = time.monotonic(), 0
    cells = [cell for cell in _read(home)["cells"] if only in cell["name"]]
    context = get_context("forkserver")
    context.set_forkserver_preload(["tasks.training.student", "tasks.training.negatives"])  # seconds to import
    with ProcessPoolExecutor(side_by_side, context, initializer=_one_thread) as pool:
        futures = {pool.submit(train_cell, home, cell): cell["name"] for cell in cells}
        try:
            for done, future in enumerate(as_completed(futures, timeout=seconds), 1):
                try:
                    said = future.result()
                except Exception:  # the others are worth having
                    said, failed = f"{futures[future]} failed:\n{traceback.format_exc()}", failed + 1
                print(f"{time.monotonic() - began:4.0f} s  {done} of {len(cells)}  {said}", flush=True)
        except TimeoutError:
            print(f"Out of time: {sum(not future.done() for future in futures)} of {len(cells)} not done.", flush=True)
        for process in list(pool._processes.values()):
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
    return failed


def pack(home: Path, out: Path) -> None:
    """Writes what the other machine made, without weights."""
    there, first_of = set(_read(home)["there"]), dict[str, Path]()
    for file in (home / TRAININGS).glob("*/examples.parquet"):  # most are alike, and tar writes a link only once
        first = first_of.setdefault(hashlib.sha256(file.read_bytes()).hexdigest(), file)
        if not first.samefile(file):
            file.unlink()
            file.hardlink_to(first)

    def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        left = member.name in there or any(Path(member.name).match(pattern) for pattern in LEFT_THERE)
        return None if left else member

    with tarfile.open(out, "w:gz", compresslevel=3) as tar:
        for name in ("store", TRAININGS):
            tar.add(home / name, name, filter=wanted)


def _read(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / PLAN).read_text(encoding="utf-8"))
    return found


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    planned = commands.add_parser("plan")
    planned.add_argument("files", type=Path, nargs="+")
    planned.add_argument("--home", type=Path, required=True)
    trained = commands.add_parser("train")
    trained.add_argument("--home", type=Path, required=True)
    trained.add_argument("--side-by-side", type=int, default=4)
    trained.add_argument("--seconds", type=float, default=500)
    trained.add_argument("--only", default="", help="trainings whose name has this in it")
    trained.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.command == "plan":
        print(f"{plan(given.files, given.home)} trainings: {given.home / PLAN}")
        return 0
    failed = train(given.home, given.side_by_side, given.seconds, given.only)
    if given.out:
        pack(given.home, given.out)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
