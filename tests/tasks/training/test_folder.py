"""A training's folder: outcomes, who may work in it, and what is left when a process dies between any two writes."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.errors import RunStopped
from storage.errors import UsageError
from tasks.running import worker as worker_module
from tasks.training.evaluation import evaluate_round
from tasks.training.folder import Training, trainings_in
from tasks.training.negatives import sample_negatives
from tasks.training.outcomes import Preparation, RoundTrained, TooLong
from tasks.training.quality import update_quality
from tasks.training.rounds import best_round, prune
from tasks.training.spec import TrainingSpec
from tasks.training.student import train_round
from tests.tasks.training.world import World, small_world, tiny_training

TRAINED = RoundTrained(t=0, checkpoint="step-00000001", steps=1, examples=3, means={}, seconds=1.0)


def test_a_folder_that_is_no_training_is_named(tmp_path: Path) -> None:
    training = Training(tmp_path)
    assert not training.is_one
    with pytest.raises(UsageError, match=r"is no training: it has no training\.json\. Trainings are made by `qcrd dis"):
        _ = training.spec
    assert trainings_in(tmp_path) == []


# ---- outcomes ----


def test_an_outcome_is_stored_after_its_step_and_read_from_then_on(tmp_path: Path) -> None:
    training, calls = Training(tmp_path), []

    def step() -> RoundTrained:
        calls.append(training.outcome(RoundTrained, 0))
        if len(calls) == 1:
            raise RuntimeError("stopped")
        return TRAINED

    with pytest.raises(RuntimeError, match="stopped"):
        training.once(RoundTrained, step, 0)
    assert training.outcome(RoundTrained, 0) is None
    assert training.once(RoundTrained, step, 0) == training.once(RoundTrained, step, 0) == TRAINED
    assert calls == [None, None]
    assert [path.name for path in training.round(0).iterdir()] == ["trained.json"]
    assert training.outcome(RoundTrained, 1) is None


def test_an_outcome_of_an_older_version_is_read(tmp_path: Path) -> None:
    """It said where it lies, too; that may have changed since."""
    preparation = Preparation(
        questions=3, positives=2, negatives=1, without_answer=0, without_positives=0, without_negatives=0,
        left_out=0, parameters=9, too_long=TooLong(),
    )  # fmt: skip
    older = {"folder": "/gone", "training_id": "abc", "name": "lab-abc", **preparation.model_dump()}
    (tmp_path / "prepared.json").write_text(json.dumps(older))
    assert Training(tmp_path).outcome(Preparation) == preparation


# ---- who works in it ----


def test_a_step_is_computed_by_one_of_two_threads_and_found_by_the_other(tmp_path: Path) -> None:
    calls: list[str] = []
    found: list[RoundTrained] = []

    def step() -> RoundTrained:
        calls.append("computed")
        time.sleep(0.3)
        return TRAINED

    threads = [
        threading.Thread(target=lambda: found.append(Training(tmp_path).once(RoundTrained, step, 0))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["computed"]
    assert found == [TRAINED, TRAINED]


def _processes() -> Any:
    """Starts processes that begin with everything imported, and no threads."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])
    return server


def _hold(folder: Path, spec: TrainingSpec, ready: Path, waits: Path) -> None:
    """In a process of its own: says that it waits, if it does, then that it holds the training."""
    with Training(folder).held(spec, waits.touch):
        ready.touch()
        time.sleep(600)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def test_a_second_run_waits_until_the_first_is_gone_however_it_went(tmp_path: Path) -> None:
    prepared = small_world(tmp_path).prepare()
    ready, waits = ([tmp_path / f"{what}-{number}" for number in range(2)] for what in ("ready", "waits"))

    def start(number: int) -> Any:
        process = _processes().Process(
            target=_hold, args=(prepared.folder, prepared.spec, ready[number], waits[number])
        )
        process.start()
        return process

    first = start(0)
    _until(ready[0].exists)
    second = start(1)
    try:
        _until(waits[1].exists)
        assert not waits[0].exists(), "it waited for nobody"
        assert not ready[1].exists()
        first.kill()
        _until(ready[1].exists)
    finally:
        for process in (first, second):
            process.kill()
            process.join()


def test_a_run_that_waits_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = small_world(tmp_path).prepare()
    stopping = threading.Event()
    monkeypatch.setattr(worker_module, "_stopping", stopping)
    with Training(prepared.folder).held(prepared.spec):
        stopped: list[str] = []

        def wait() -> None:
            with pytest.raises(RunStopped), Training(prepared.folder).held(prepared.spec, stopping.set):
                pass
            stopped.append("yes")

        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(timeout=60)
    assert stopped == ["yes"]


def test_what_killed_processes_left_is_removed_when_the_training_is_taken_up(tmp_path: Path) -> None:
    prepared = small_world(tmp_path).prepare()
    folder = prepared.folder
    # A process id says nothing: it may be another process's by now, or one of another container.
    pid = os.getpid()
    (folder / "round-000" / f".step-00000005.partial-{pid}" / "model" / f".model.partial-{pid}").mkdir(parents=True)
    (folder / f".prepared.json.partial-{pid}").touch()
    (folder / f".initial.replaced-{pid}").mkdir()
    mine = folder / ".notes.partial-mine"
    mine.touch()
    before = {path for path in folder.rglob("*") if f"-{pid}" not in str(path)}
    with Training(folder).held(prepared.spec):
        assert set(folder.rglob("*")) == before


# ---- killed between any two writes ----

SETTINGS: dict[str, Any] = {
    "rounds": {"rounds": 2, "answer_tokens": 2},
    "negatives": {"lag": 1, "max_tokens": 4},
    "discriminator": {"pretrain_steps": 2, "update_steps": 1, "update_every": 1, "batch_size": 8},
    "optimisation": {"batch_size": 6, "log_every": 1, "checkpoint_every_s": 60.0},
}
WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
HOW_LONG = ("seconds", "sampled", "scored")
"""What says how much the last attempt at a step had left to do."""


def _train(root: Path) -> None:
    """A whole training, as the flow goes through it."""
    torch.set_num_threads(1)  # as a worker does from its first step on: another number rounds otherwise
    prepared = World(root).prepare(tiny_training(**SETTINGS))
    folder, training = prepared.folder, Training(prepared.folder)
    with training.held(prepared.spec):
        for t in range(2):
            sample_negatives(folder, t)
            update_quality(folder, t)
            train_round(folder, t)
            evaluate_round(folder, t, "validation")
            prune(training)
        evaluate_round(folder, best_round(training.evaluations()), "test")


def _train_and_watch(root: Path, copies: Path | None, kill_at: int, writes: Any) -> None:
    """In a process of its own: trains, and counts the writes in the training's folder.

    What is written into a folder that is not there yet under its name counts once for the whole folder: it is removed
    as a whole, however many files it has by then. With QCRD_EVERY_WRITE set every file counts.

    Args:
        copies: where to put a copy of everything as it is just before each write, in folders 1, 2, ...; None: nowhere.
        kill_at: the write just before which the process dies; 0: never.
        writes: where it counts.
    """
    trainings = str(root / "trainings")
    begun: set[str] = set()

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" and event not in WRITES:
            return
        path = Path(os.fsdecode(arguments[0])) if isinstance(arguments[0], (str, bytes, os.PathLike)) else Path("/")
        inside_removed = event != "open" and not path.is_absolute()  # rmtree says the names in a folder by themselves
        if not inside_removed and not str(path).startswith(trainings):
            return
        if event == "open":
            written = isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
            partial = re.match(r".*?\.partial-[0-9]+/", str(path))
            if not written or path.suffix == ".lock" or (partial and partial[0] in begun):
                return
            if partial and "QCRD_EVERY_WRITE" not in os.environ:
                begun.add(partial[0])
        elif not inside_removed and path.exists() == (event == "os.mkdir"):
            return  # it changes nothing
        writes.value += 1
        if copies:
            shutil.copytree(root, copies / str(writes.value))
        if writes.value == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    _train(root)


def _names(root: Path) -> list[str]:
    """Of all files and folders, without what says which process made them, and when."""
    made_by = re.compile(r"(?<=\.partial-)[0-9]+|(?<=\.replaced-)[0-9]+|(?<=part-)[0-9a-zA-Z-]+")
    return sorted(made_by.sub("X", str(path.relative_to(root))) for path in root.rglob("*"))


def _result(root: Path) -> dict[str, Any]:
    """All that must not depend on kills: outcomes, weights bit for bit, rows, and which files there are."""
    (training,) = trainings_in(root)
    files = [file for file in sorted(training.folder.rglob("*")) if file.is_file() and not file.name.endswith(".lock")]
    outcomes = {}
    for file in files:
        if file.suffix == ".json" and file.name != "state.json":
            made = json.loads(file.read_text().replace(str(root), "ROOT"))
            outcomes[str(file)] = {name: value for name, value in made.items() if name not in HOW_LONG}
    rows = World(root).store.query(
        "SELECT 'prediction' AS kind, example_id AS id, model AS what, concat(answer, '/', rationale) AS value "
        "FROM predictions UNION ALL SELECT 'score', sample_id, round::VARCHAR, score::VARCHAR FROM scores "
        "UNION ALL SELECT 'rationale', sample_id, model, text FROM rationales ORDER BY ALL"
    )
    return {
        "files": [str(file.relative_to(root)) for file in files],
        "outcomes": {name.replace(str(root), "ROOT"): made for name, made in outcomes.items()},
        "weights": [file.read_bytes() for file in files if file.suffix == ".safetensors"],
        "rows": rows.to_pylist(),
    }


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_before_any_write_and_taken_up_again_it_ends_the_same(tmp_path: Path) -> None:
    """Every single write, not a sample of them.

    A process that is killed leaves its files as they are just then. So one training is enough to have what a kill
    leaves before each of its writes: a copy. Three processes are really killed, and leave what was copied.
    """
    server = _processes()
    root, template, copies = tmp_path / "root", tmp_path / "template", tmp_path / "copies"
    template.mkdir()
    small_world(template)

    def trained(copies: Path | None = None, kill_at: int = 0) -> tuple[int, int]:
        """(exit code, writes)"""
        writes = server.Value("i", 0)
        process = server.Process(target=_train_and_watch, args=(root, copies, kill_at, writes))
        process.start()
        process.join()
        return process.exitcode or 0, writes.value

    shutil.copytree(template, root)
    code, writes = trained(copies)
    assert code == 0
    assert writes > 60, writes
    expected = _result(root)
    shutil.rmtree(root)

    for number in (writes // 4, writes // 2, writes):
        shutil.copytree(template, root)
        assert trained(kill_at=number) == (-signal.SIGKILL, number)
        assert _names(root) == _names(copies / str(number)), f"a kill before write {number} of {writes}"
        shutil.rmtree(root)

    for number in range(1, writes + 1):
        (copies / str(number)).rename(root)  # under the path that its files name
        assert trained()[0] == 0, f"it does not go on after a kill before write {number} of {writes}"
        found = _result(root)
        for part, value in expected.items():
            assert found[part] == value, f"{part} differ after a kill before write {number} of {writes}"
        shutil.rmtree(root)
