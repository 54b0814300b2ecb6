"""`teacher.budget` and `teacher.choose`: a run asks what it may pay, and the same questions however it gets there."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from storage.store import Store
from tasks.training.folder import Training
from tests.conftest import Qcrd, figures, qcrd_command
from tests.flows.own_data import SHORT_TRAINING, family, write_own_data
from tests.flows.test_planted_secret import endpoint
from tests.flows.test_shards import adds_up, never
from tests.models.endpoint import Endpoint

CONFIG = (
    """
dataset: {name: sums.yaml, validation_split: null}
teacher: {url: "URL", model: big, n: 2, max_tokens: 8, in_flight: 2, budget: {questions: 12}}
method: {name: dss}
registry: {register_model: false}
"""
    + SHORT_TRAINING
)
ASKED = "SELECT DISTINCT example_id FROM rationales ORDER BY example_id"
CHOSEN = "SELECT run_id, example_id, choose, student FROM chosen ORDER BY created_at, place"

pytestmark = [pytest.mark.slow]


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """60 questions for training, 10 for test; the working directory."""
    write_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)


@contextmanager
def teacher(answer: Callable[..., Any] = adds_up) -> Iterator[Endpoint]:
    with endpoint(*[answer] * 1000) as served:
        Path("small.yaml").write_text(CONFIG.replace("URL", served.url), encoding="utf-8")
        yield served


def asked(home: Path) -> set[str]:
    return set(Store(home / "store").query(ASKED)["example_id"].to_pylist())


def trained_on(result: dict[str, Any]) -> int:
    """Questions in the training set of its method."""
    rows: int = Training(Path(result["methods"][0]["folder"])).examples().num_rows
    return rows


def chosen(home: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = Store(home / "store").query(CHOSEN).to_pylist()
    return rows


@pytest.mark.usefixtures("databases")
def test_what_can_come_to_nothing_is_refused_before_anything_is_paid(qcrd: Qcrd) -> None:
    with teacher() as served:
        refused = qcrd("distill", "small.yaml", "--set", "registry.risk=0.001", code=2).stderr
        assert "registry.risk is 0.001, which takes at least 2,995 certifying questions" in refused
        assert served.bodies == []


@pytest.mark.usefixtures("databases")
def test_a_run_asks_what_it_may_pay_and_the_next_one_asks_others(home: Path, qcrd: Qcrd) -> None:
    with teacher() as served:
        first = figures(qcrd("distill", "small.yaml", "--json"))
        before = asked(home)
        assert len(served.bodies) == len(before) == 12
        assert {row["example_id"] for row in chosen(home)} == before
        assert trained_on(first) == 12, "trained on those that have samples"
        tested = {row["n"] for row in Store(home / "store").query(
            "SELECT count(*) AS n FROM predictions WHERE split = 'test' GROUP BY model").to_pylist()}  # fmt: skip
        assert tested == {10}, "the test questions are all there"

        second = figures(qcrd("distill", "small.yaml", "--json"))
        assert before < asked(home)
        assert len(served.bodies) == len(asked(home)) == 24, "what is stored costs nothing and stays in"
        assert trained_on(second) == 24

        at_once = figures(
            qcrd("distill", "small.yaml", "--json", "--set", "teacher.budget.questions=24", home=home / "at-once")
        )
        assert asked(home / "at-once") == asked(home), "a larger budget contains the smaller one"
        assert trained_on(at_once) == 24


def test_after_a_kill_and_in_shards_the_same_questions_are_asked() -> None:
    with teacher() as served:
        done = subprocess.run(
            qcrd_command(Path("alone"), "distill", "small.yaml"), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        wanted, asked_by_then = asked(Path("alone")), len(served.bodies)

        served.script[:] = [adds_up] * 5 + [never] * 2 + [adds_up] * 1000
        command = qcrd_command(Path("killed"), "distill", "small.yaml")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
            while len(served.bodies) < asked_by_then + 7:
                assert run.poll() is None, run.communicate()
                time.sleep(0.1)
            time.sleep(2)  # what came is stored within a second
            for process in reversed(family(run.pid)):
                process.send_signal(signal.SIGKILL)
        assert asked(Path("killed")) < wanted
        subprocess.run(qcrd_command(Path("killed"), "resume"), check=True, capture_output=True)
        assert asked(Path("killed")) == wanted
        assert len({row["run_id"] for row in chosen(Path("killed"))}) == 1

        shared = qcrd_command(Path("shared"), "distill", "small.yaml", "--set", "teacher.shards=3")
        subprocess.run(shared, check=True, capture_output=True)
        assert asked(Path("shared")) == wanted


@pytest.mark.usefixtures("databases")
@pytest.mark.parametrize("way", ["uncertain", "mixed"])
def test_the_champion_chooses_once_there_is_one(way: str, home: Path, qcrd: Qcrd) -> None:
    settings = ["--set", f"teacher.choose={way}", "--set", "registry.register_model=true"]
    with teacher():
        first = qcrd("distill", "small.yaml", *settings)
        assert "No champion of qcrd-sums is registered yet, so teacher.choose" in first.stderr
        qcrd("distill", "small.yaml", *settings)
    rows = chosen(home)
    assert [row["choose"] for row in rows] == ["random"] * 12 + [way] * 12
    assert {row["student"] for row in rows[12:]} == {"qcrd-sums/1"}
    assert len({row["example_id"] for row in rows}) == 24


@pytest.mark.usefixtures("databases")
def test_a_budget_of_tokens_is_never_exceeded(home: Path, qcrd: Qcrd) -> None:
    """The endpoint says 11 tokens a prompt and 2 a sample, so 15 a question; one may take 16 and its prompt's bytes."""
    with teacher() as served:
        settings = ["--set", "teacher.budget={tokens: 1000}"]
        done = qcrd("distill", "small.yaml", *settings)
        spent = 15 * len(served.bodies)
        assert "The budget ends the sampling" in done.stderr
        assert 400 < spent <= 1000
        refused = qcrd("distill", "small.yaml", "--set", "teacher.budget={tokens: 20}", code=2, home=home / "poor")
        assert "teacher.budget pays for no request: one may cost" in refused.stderr.splitlines()[-1]
