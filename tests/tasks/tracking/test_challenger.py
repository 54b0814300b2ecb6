"""A student with a promise is registered with its threshold, and abstains when it is loaded."""

from pathlib import Path

import pytest

from storage.datasets.definition import Example
from storage.datasets.registry import get_dataset
from tasks.errors import TrackingFailed
from tasks.serving.evaluate import evaluate_registered
from tasks.tracking.challenger import register_best
from tasks.tracking.client import open_tracking
from tasks.tracking.registry import load_registered
from tasks.tracking.run import TrainingRun
from tasks.tracking.settings import RegistrySettings
from tasks.training.calibration import calibrate
from tasks.training.evaluation import evaluate_round
from tasks.training.outcomes import QualityUpdated
from tasks.training.student import train_round
from tests.tasks.conftest import home_with
from tests.tasks.training.test_evaluation import MANY, sure_student
from tests.tasks.training.world import small_world, tiny_training


@pytest.fixture
def home(mlflow_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder with an empty MLflow."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return home_with(mlflow_database, tmp_path / "home")


@pytest.mark.parametrize(("abstain_below", "refuses"), [(0.5, False), (0.9, True)])
def test_only_a_student_that_is_taught_to_refuse_is_said_to(
    home: Path, tmp_path: Path, abstain_below: float, refuses: bool
) -> None:
    """Two of three samples agree on every question but one."""
    tracking, world = open_tracking(home), small_world(tmp_path)
    world.sample(world.ask("Eva has 3 pens and 1 more?", "4"), ("3 + 1 = 4.", "4"))
    world.vote()
    config = tiny_training(
        method={"name": "dss", "abstain_below": abstain_below}, rounds={"rounds": 1, "answer_tokens": 16}
    )
    prepared = world.prepare(config)
    assert prepared.refusals == (12 if refuses else 0)
    run = TrainingRun(tracking, prepared, "run", {})
    train_round(prepared.folder, 0)
    run.round(0, QualityUpdated(version=None), evaluate_round(prepared.folder, 0, "validation"))
    logged = run.finish(0, evaluate_round(prepared.folder, 0, "test"))
    version = register_best(tracking, prepared.folder, logged, RegistrySettings(), {})
    assert version.tags.get("qcrd.refuses_below") == ("0.9" if refuses else None)


def test_the_threshold_goes_with_the_student(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = small_world(tmp_path)
    config = tiny_training(method={"name": "dss"}, rounds={"rounds": 1}).model_copy(update={"risk": 0.1})
    tracking = open_tracking(home)
    with monkeypatch.context() as patch:  # the figures are those of a student that is sure and right
        sure_student(world, patch, wrong=1000)
        prepared = world.prepare(config, MANY)
        run = TrainingRun(tracking, prepared, "run", {})
        train_round(prepared.folder, 0)
        run.round(0, QualityUpdated(version=None), evaluate_round(prepared.folder, 0, "validation"))
        calibrated = calibrate(prepared.folder, 0)
        test = evaluate_round(prepared.folder, 0, "test")
        logged = run.finish(0, test)
    promise = calibrated.promise
    assert promise is not None
    assert test.abstention is not None
    version = register_best(tracking, prepared.folder, logged, RegistrySettings(risk=0.1), {})
    told = {name: version.tags[f"qcrd.{name}"] for name in ("risk", "abstain_below", "coverage", "confidence_from")}
    assert told == {
        "risk": "0.1", "abstain_below": f"{promise.abstain_below:.6g}",
        "coverage": f"{promise.answered / promise.questions:.4g}", "confidence_from": calibrated.confidence_from,
    }  # fmt: skip
    metrics = tracking.client.get_run(logged.training).data.metrics
    assert metrics["test/coverage"] == pytest.approx(test.abstention.coverage)
    assert metrics["test/coverage_low"] < metrics["test/coverage"] < metrics["test/coverage_high"]
    assert (metrics["test/risk"], metrics["test/risk_low"]) == (0, 0)
    assert metrics["test/aurc"] == pytest.approx(test.decided[0].aurc)
    # The student itself has learned next to nothing, and knows it.
    student = load_registered(home, version.name, "challenger")
    asked = ["Eva has 3 pens and 1 more?", "Eva has 4 pens and 1 more?"]
    rows = student.predict(asked)
    sure = [row["confidence"] is not None and row["confidence"] >= promise.abstain_below for row in rows]
    assert [row["abstained"] for row in rows] == [not one for one in sure]
    assert not all(sure)
    assert all(row["answer"] is None and row["rationale"] is None for row in rows if row["abstained"])
    guesses = student.predict(asked, guesses=True)
    assert [row["abstained"] for row in guesses] == [row["abstained"] for row in rows]
    assert any(row["rationale"] is not None for row in guesses)
    # Measured on labelled questions, its guesses count for accuracy, what it gives for coverage and risk.
    labelled = [Example(one, (), "4") for one in asked]
    measured = evaluate_registered(home, world.store, get_dataset("lab"), "new", labelled, version.name, "challenger")
    assert (measured.questions, measured.answered) == (2, sum(sure))
    assert measured.accuracy == sum(row["answer"] == "4" for row in guesses) / 2
    assert measured.wrong == sum(one and row["answer"] != "4" for one, row in zip(sure, rows, strict=True))
    # MLflow's database names absolute paths.
    with pytest.raises(TrackingFailed, match=r"version 1 are not in .*\. If this state folder was moved"):
        load_registered(home.rename(tmp_path / "moved"), version.name, "challenger")
