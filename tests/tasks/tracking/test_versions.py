"""Versions with their figures, and the way back to an earlier champion, on a real MLflow database."""

from collections.abc import Callable
from pathlib import Path

import pytest

from storage.errors import NothingToDo, UnknownName
from tasks.tracking.client import LoggedRound, Tracking, open_tracking
from tasks.tracking.gate import Verdict
from tasks.tracking.registry import Registered, hold_gate
from tasks.tracking.versions import roll_back, versions_of
from tests.tasks.conftest import home_with
from tests.tasks.tracking.test_registry import aliases, trained

NAME = "qcrd-lab"


@pytest.fixture
def home(mlflow_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return home_with(mlflow_database, tmp_path / "home")


@pytest.fixture
def tracking(home: Path) -> Tracking:
    return open_tracking(home)


Grow = Callable[[str, int], tuple[Registered, Verdict]]


@pytest.fixture
def grow(tracking: Tracking) -> Grow:
    """Registers a training's student that answers the first so many of 100 test questions right, and holds the gate."""
    right: dict[str, int] = {}

    def grown(training: str, correct: int) -> tuple[Registered, Verdict]:
        right[training] = correct
        version = registered(tracking, training, correct)
        verdict = hold_gate(
            tracking, version, lambda one: {str(n): n < right[one.tags["qcrd.training_id"]] for n in range(100)}
        )
        return version, verdict

    return grown


def registered(tracking: Tracking, training: str, correct: int) -> Registered:
    """As `register` does it, without packaging files: those are not what is tested here."""
    logged: LoggedRound = trained(tracking, training)
    tracking.finish(logged.training, {"accuracy": correct / 100, "explanation_accuracy": 0.25}, logged)
    client = tracking.client
    if not client.search_registered_models(f"name = '{NAME}'"):
        client.create_registered_model(NAME)
    known = client.search_model_versions(f"name = '{NAME}' AND tags.`qcrd.training_id` = '{training}'")
    tags = {"qcrd.training_id": training, "qcrd.model_id": logged.model_id, "qcrd.student": f"lab-qcrd-{training}@0"}
    with tracking.backend.current():
        version = known[0] if known else client.create_model_version(
            NAME, f"models:/{logged.model_id}", logged.run_id, tags, model_id=logged.model_id
        )  # fmt: skip
    return Registered(NAME, str(version.version), dict(version.tags))


def test_versions_are_told_with_figures_aliases_verdicts_and_lineage(home: Path, grow: Grow) -> None:
    grow("first", 50)
    grow("better", 80)
    grow("worse", 40)
    worse, better, first = versions_of(home, NAME)
    assert [one.version for one in (worse, better, first)] == ["3", "2", "1"]
    assert [one.aliases for one in (worse, better, first)] == [(), ("champion",), ()]
    assert [one.accuracy for one in (worse, better, first)] == [0.4, 0.8, 0.5]
    assert better.explanation_accuracy == 0.25
    assert first.gate == "promoted: there was no champion"
    assert worse.gate is not None
    assert worse.gate.startswith("not promoted: challenger 40.0%")
    assert better.tags["qcrd.student"] == "lab-qcrd-better@0"
    assert better.rolled_back is None


def test_rolled_back_again_and_again_it_walks_down_the_champions(home: Path, tracking: Tracking, grow: Grow) -> None:
    for training, correct in (("first", 40), ("second", 60), ("worse", 30), ("third", 80)):
        grow(training, correct)
    assert aliases(tracking, NAME)["champion"] == 4
    done = roll_back(home, NAME)
    assert (done.champion, done.before) == ("2", "4"), "not the third, which never was champion"
    assert aliases(tracking, NAME)["champion"] == 2
    assert roll_back(home, NAME).champion == "1"
    with pytest.raises(
        NothingToDo, match=r"^qcrd-lab version 1 cannot be rolled back: no champion was before it\. Nam"
    ):
        roll_back(home, NAME)
    assert aliases(tracking, NAME)["champion"] == 1
    assert [one.rolled_back is not None for one in versions_of(home, NAME)] == [True, False, True, False]


def test_what_was_rolled_back_is_not_promoted_again_but_a_new_version_is(
    home: Path, tracking: Tracking, grow: Grow
) -> None:
    grow("first", 40)
    grow("second", 70)
    roll_back(home, NAME)
    _, verdict = grow("second", 70)  # the same run once more
    assert not verdict.promoted
    assert verdict.reason.startswith("version 2 was rolled back 20")
    assert aliases(tracking, NAME)["champion"] == 1
    assert grow("third", 75)[1].promoted
    assert roll_back(home, NAME, to="2").before == "3"
    assert [one.rolled_back is None for one in versions_of(home, NAME)] == [False, True, True]


def test_what_is_not_there_is_named(home: Path, tracking: Tracking, grow: Grow) -> None:
    with pytest.raises(UnknownName, match="Unknown registered model 'qcrd-lab'"):
        versions_of(home, NAME)
    grow("first", 40)
    with pytest.raises(UnknownName, match=r"Unknown version of qcrd-lab '7'.*Allowed: 1"):
        roll_back(home, NAME, to="7")
    with pytest.raises(NothingToDo, match="version 1 is the champion already"):
        roll_back(home, NAME, to="1")
    grow("second", 80)
    tracking.client.delete_model_version(NAME, "1")
    with pytest.raises(NothingToDo, match=r"version 1, the champion before it, is gone\. It is the only version"):
        roll_back(home, NAME)
    tracking.client.delete_registered_model_alias(NAME, "champion")
    with pytest.raises(NothingToDo, match="no champion to roll back"):
        roll_back(home, NAME)
