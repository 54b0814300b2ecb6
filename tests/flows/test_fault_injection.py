"""The whole flow killed with -9 at fifty random moments, its own and its workers' processes, and resumed every time.

Two methods are trained side by side. Nothing is sampled twice, no row is lost, and in the end there are the same
weights, figures and one registered version as of a run that nobody killed. A real vLLM server answers as the teacher,
one question after the other: the same batch gives the same samples on a CPU, so that the killed run and the other one
learn from the same texts.
"""

import contextlib
import fcntl
import glob
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest
from mlflow import MlflowClient

from models.configs import LabTeacherConfig
from models.lab_teacher import train_lab_teacher
from models.server import VllmServer, free_port
from models.server_settings import ServerConfig
from storage.checking import check_store
from storage.datasets.registry import get_dataset
from storage.store import Store
from tests.flows.own_data import family, still_running, weights, without_clock, write_own_data
from tests.warm_start import Started, WarmStart

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

KILLS = 50
LONGEST_S = 2.5  # a kill comes at most so long after a stage is reached
QUESTIONS, N = 60, 4
SETTINGS = [
    f"teacher.n={N}", "teacher.in_flight=1", "teacher.files=[]", "teacher.source=sample",
    "teacher.model=sums-teacher", "teacher.api=completions", "teacher.max_tokens=40", "teacher.temperature=0.7",
]  # fmt: skip
RESUME = ["resume", "--json"]
TEACHER = LabTeacherConfig(
    hidden=64, heads=2, layers=2, intermediate=128, steps=500, batch_size=32, warmup_steps=10, max_tokens=160
)


@pytest.fixture(scope="module")
def own_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small dataset of one's own."""
    folder = tmp_path_factory.mktemp("own")
    write_own_data(folder)
    return folder


@pytest.fixture(scope="module")
def teacher(own_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """A vLLM server of a tiny teacher that has learnt these questions, one in four times wrongly."""
    dataset = get_dataset(str(own_data / "sums.yaml"))
    texts = []
    for example in dataset.load("train", None, None):
        prompt = dataset.teacher_prompt(example.question, example.choices).plain
        right = int(example.label or 0)
        for answer in (right, right, right, right + 1):
            texts.append((prompt, f" It is {answer}. So the answer is {answer}."))
    model = train_lab_teacher(texts, tmp_path_factory.mktemp("models") / "sums-teacher", TEACHER)
    config = ServerConfig(model=str(model), served_name="sums-teacher", port=free_port("127.0.0.1"))
    with VllmServer(config, tmp_path_factory.mktemp("server") / "server.log") as server:
        yield server


class Runs:
    """Starts `qcrd` on one state folder.

    Args:
        home: the state folder.
        folder: with the dataset; the working directory.
        warm: who starts it.
    """

    def __init__(self, home: Path, folder: Path, warm: WarmStart) -> None:
        self.home, self.log, self._out = home, home.with_suffix(".log"), home.with_suffix(".json")
        self._folder, self._warm = folder, warm

    def start(self, *arguments: str) -> Started:
        """Starts a command."""
        with self._out.open("wb") as out, self.log.open("ab") as log:
            return self._warm.start(self.home, *arguments, stdout=out, stderr=log, cwd=self._folder)

    def to_the_end(self, *arguments: str) -> dict[str, Any]:
        """Runs a command that nobody kills; what it printed."""
        with self.start(*arguments) as run:
            assert run.wait() == 0, self.log.read_text()
        return self.result()

    def result(self) -> dict[str, Any]:
        """What the last one printed."""
        found: dict[str, Any] = json.loads(self._out.read_text())
        return found


MakeRuns = Callable[[Path], Runs]


@pytest.fixture(scope="module")
def make_runs(own_data: Path, warm_start: WarmStart, new_databases: Callable[[Path], Path]) -> MakeRuns:
    """For a state folder, which gets new databases."""
    return lambda home: Runs(new_databases(home), own_data, warm_start)


def locks_held(home: Path) -> list[Path]:
    """Lock files under a state folder that somebody holds."""
    held = []
    for pattern in ("**/*.lock", "slots/*", "store/_locks/*"):
        for file in found(home, pattern):
            with contextlib.suppress(FileNotFoundError), file.open() as handle:  # gone since
                try:
                    fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    held.append(file)
    return held


def found(home: Path, pattern: str) -> list[Path]:
    """Paths in a state folder that a run is at work in; Path.glob fails where a folder goes while it looks."""
    names = glob.glob(pattern, root_dir=home, recursive=True, include_hidden=True)  # noqa: PTH207
    return [home / name for name in names]


STAGES = {
    "sampling the teacher": "store/rationales/**/*.parquet",
    "voting": "store/votes/**/*.parquet",
    "preparing": "trainings/*",
    "student samples": "trainings/*/round-000/negatives.json",
    "discriminator": "trainings/*/round-000/quality.json",
    "training": "trainings/*/round-000/steps.jsonl",
    "checkpoint": "trainings/*/round-000/step-*",
    "evaluating": "trainings/*/round-000/validation.json",
    "round 1": "trainings/*/round-001/steps.jsonl",
    "round 2": "trainings/*/round-002/steps.jsonl",
    "testing": "trainings/*/round-*/test.json",
    "packaging": "mlflow/packaging-*",
    "registering": "mlflow/artifacts/models/*",
}
"""What lies in the state folder when a run has come so far, in this order."""
AHEAD = 1
"""A kill comes at the stage that was reached, or at most so many later."""


def reached(home: Path) -> int:
    """How many stages a run has come to."""
    return max((number for number, pattern in enumerate(STAGES.values(), 1) if found(home, pattern)), default=0)


def can_resume(home: Path) -> bool:
    """Whether a run is stored that has not finished; one that was killed on its way out has."""
    return begun(home) and rows(home, "SELECT DISTINCT state FROM runs") != [{"state": "finished"}]


def begun(home: Path) -> bool:
    """Whether a run is stored."""
    return bool(found(home, "store/runs/**/*.parquet"))


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody killed.

    Attributes:
        command: that started it.
        home: its state folder.
        result: what it printed.
        seconds: it took.
    """

    command: list[str]
    home: Path
    result: dict[str, Any]
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(make_runs: MakeRuns, teacher: VllmServer, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """What every other run is to come to."""
    command = ["distill", "small.yaml", "--json"]
    for setting in (*SETTINGS, f"teacher.url={teacher.base_url}"):
        command += ["--set", setting]
    runs = make_runs(tmp_path_factory.mktemp("undisturbed") / "home")
    started = time.monotonic()
    result = runs.to_the_end(*command)
    seconds = time.monotonic() - started
    assert result["sampled"]["samples"] == QUESTIONS * N
    assert 0.6 < result["votes"]["single_accuracy"] < 1, "the teacher is to be usefully wrong"
    return Undisturbed(command, runs.home, result, seconds)


def rows(home: Path, sql: str) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = Store(home / "store").query(sql).to_pylist()
    return answer


SAMPLES = "SELECT sample_id, source, text, answer FROM rationales ORDER BY sample_id"
COUNTS = [f"SELECT count(*) AS n FROM {table}" for table in ("votes", "scores", "predictions")]


def test_killed_and_resumed_it_ends_as_if_it_had_not_been(
    own_data: Path, warm_start: WarmStart, make_runs: MakeRuns, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed of the moments: {seed}")  # shown where the test fails
    moments, killed = random.Random(seed), Counter[str]()
    campaign, began = 0, time.monotonic()
    while killed.total() < KILLS:
        home = tmp_path / f"home-{campaign}"
        processes, code = list[psutil.Process](), None
        runs = make_runs(home) if campaign else Runs(home, own_data, warm_start)  # the first makes its databases itself
        while code != 0:
            run = runs.start(*(RESUME if can_resume(home) else undisturbed.command))
            if killed.total() < KILLS:
                wanted = min(reached(home) + moments.randint(0, AHEAD), len(STAGES))
                while run.poll() is None and (reached(home) < wanted or not locks_held(home)):
                    time.sleep(0.05)
                # At the last stage a resumed run still has to come there: it must be able to end before its kill.
                time.sleep(moments.uniform(0, LONGEST_S if wanted < len(STAGES) else undisturbed.seconds))
                processes += family(run.pid)
                run.kill_group()
            code = run.wait()
            assert code in (0, -signal.SIGKILL), runs.log.read_text()
            if code != 0:
                stage = ["starting", *STAGES][reached(home)]
                killed[stage] += 1
                print(f"{time.monotonic() - began:.0f} s: kill {killed.total()}, {stage}", flush=True)
        same_as(runs, undisturbed)
        assert still_running(processes) == []
        campaign += 1
    print(f"killed: {dict(killed)} in {campaign} runs")


def test_a_teacher_that_goes_away_fails_the_run_and_the_next_one_asks_only_for_the_rest(
    make_runs: MakeRuns, teacher: VllmServer, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    runs = make_runs(tmp_path / "home")
    with runs.start(*undisturbed.command, "--set", "teacher.retries=1") as run:
        while reached(runs.home) == 0:  # the first samples
            time.sleep(0.02)
        teacher.stop()
        assert run.wait() == 2, runs.log.read_text()
    *_, hint, complaint = runs.log.read_text().splitlines()
    assert complaint.startswith("qcrd: "), complaint
    assert teacher.base_url in complaint
    assert "qcrd resume" in hint, hint
    stored = rows(runs.home, "SELECT count(*) AS n FROM rationales")[0]["n"]
    assert 0 < stored < QUESTIONS * N

    teacher.start()
    result = runs.to_the_end(*RESUME)
    assert result["sampled"]["sampled"] == QUESTIONS * N - stored
    same_as(runs, undisturbed)


def same_as(runs: Runs, undisturbed: Undisturbed) -> None:
    """Asserts that a run which was disturbed came to what another one came to."""
    home, result = runs.home, runs.result()
    assert without_clock(result) == without_clock(undisturbed.result)
    assert weights(home, result) == weights(undisturbed.home, undisturbed.result)
    assert rows(home, SAMPLES) == rows(undisturbed.home, SAMPLES)
    for count in COUNTS:
        assert rows(home, count) == rows(undisturbed.home, count), count
    report = check_store(Store(home / "store"), repair=True)
    assert (report.damaged, report.repeated) == ([], {})
    assert not list((home / "trainings").rglob("*.partial-*"))
    assert not list((home / "mlflow").glob("packaging-*"))
    assert locks_held(home) == []

    client = MlflowClient(f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")
    versions = client.search_model_versions("name = 'qcrd-sums'")
    assert [(str(version.version), version.tags["qcrd.gate.promoted"]) for version in versions] == [("1", "true")]
    aliases = client.get_registered_model("qcrd-sums").aliases
    assert {alias: str(version) for alias, version in aliases.items()} == {"challenger": "1", "champion": "1"}
    assert rows(home, "SELECT DISTINCT state FROM runs") == [{"state": "finished"}]
