"""Registered, judged, loaded: a student's way to champion, on SQLite, for real."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

from storage.errors import UnknownName, UsageError
from tasks.errors import TrackingFailed
from tasks.serving.settings import Question, ServedConfig
from tasks.tracking.client import AboutTraining, LoggedRound, Tracking, open_tracking
from tasks.tracking.gate import Verdict
from tasks.tracking.packaging import ToServe, model_name
from tasks.tracking.registry import LoadedStudent, Registered, champion_of, hold_gate, load_registered, register
from tests.tasks.conftest import Taught, home_with
from tests.tasks.serving.test_served_model import LIMITS, alone


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def mlflow_home(mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return home_with(mlflow_database, tmp_path_factory.mktemp("registry") / "home")


@pytest.fixture
def tracking(mlflow_home: Path) -> Tracking:
    return open_tracking(mlflow_home)


@pytest.fixture
def parts(taught: Taught) -> ToServe:
    example = Question(next(iter(taught.answers)))
    return ToServe(taught.student, taught.discriminator, ServedConfig(dataset="lab", **LIMITS), [example])


def trained(tracking: Tracking, training_id: str, t: int = 0) -> LoggedRound:
    """What MLflow knows of a training's round."""
    about = AboutTraining(training_id, "lab", "qcrd", "vote1", "run1", {"store": "/data/store", "prefect_run_id": "p1"})
    training = tracking.training(about, {"seed": 1})
    return tracking.finish_round(training, t, {"accuracy": 0.5}, Path("/runs/a"))


def right_of(rights: Mapping[str, tuple[int, int]]) -> Callable[[Registered], dict[str, bool]]:
    """Answers of versions by their training's id: (first right, last right) of 100 test questions."""

    def answers(version: Registered) -> dict[str, bool]:
        first, last = rights[version.tags["qcrd.training_id"]]
        return {str(place): first <= place < last for place in range(100)}

    return answers


def aliases(tracking: Tracking, name: str) -> dict[str, int]:
    return {alias: int(version) for alias, version in tracking.client.get_registered_model(name).aliases.items()}


def test_registering_twice_gives_one_version(tracking: Tracking, mlflow_home: Path, parts: ToServe) -> None:
    logged = trained(tracking, "once", 4)
    first = register(tracking, "twice", logged, parts, {"student": "lab-qcrd-once@4"})
    files = sorted(path for path in (mlflow_home / "mlflow" / "artifacts").rglob("*") if path.is_file())
    stamps = [path.stat().st_mtime_ns for path in files]
    other = open_tracking(mlflow_home)
    again = trained(other, "once", 4)
    assert again == logged
    assert register(other, "twice", again, parts, {"student": "lab-qcrd-once@4"}) == first
    assert [path.stat().st_mtime_ns for path in files if path.name != "config.yaml"] == [
        stamp for path, stamp in zip(files, stamps, strict=True) if path.name != "config.yaml"
    ]  # packaged once
    assert (first.version, first.address) == ("1", "models:/twice/1")
    [version] = tracking.client.search_model_versions("name = 'twice'")
    assert version.run_id == logged.run_id
    assert version.tags == first.tags
    assert first.tags == {
        "qcrd.training_id": "once",
        "qcrd.round": "4",
        "qcrd.dataset": "lab",
        "qcrd.method": "qcrd",
        "qcrd.vote_id": "vote1",
        "qcrd.run_id": "run1",
        "qcrd.store": "/data/store",
        "qcrd.prefect_run_id": "p1",
        "qcrd.model_id": logged.model_id,
        "qcrd.mlflow_run_id": logged.training,
        "qcrd.student": "lab-qcrd-once@4",
    }
    model = tracking.client.get_logged_model(logged.model_id)
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "twice", "version": "1"}]
    assert aliases(tracking, "twice") == {"challenger": 1}
    assert not list((mlflow_home / "mlflow").glob("packaging-*"))


def test_a_package_that_was_cut_short_is_made_again(
    tracking: Tracking, mlflow_home: Path, parts: ToServe, taught: Taught, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = trained(tracking, "short")
    leftover = mlflow_home / "mlflow" / "packaging-of-a-dead-process"
    leftover.mkdir()

    def full(model_id: str, folder: str) -> None:
        place = Path(tracking.client.get_logged_model(model_id).artifact_location)
        shutil.copytree(Path(folder) / "code", place / "code")
        raise OSError(errno.ENOSPC, "No space left on device", str(place))

    with monkeypatch.context() as patch:
        patch.setattr(tracking.client, "log_model_artifacts", full)
        with pytest.raises(TrackingFailed, match=r"^MLflow at sqlite:.*: No space left on device \(/.*\); nothing"):
            register(tracking, "short", logged, parts)
    assert champion_of(tracking, "short") is None
    assert not leftover.exists()
    assert hold_gate(tracking, register(tracking, "short", logged, parts), lambda _: {}).promoted
    assert load_registered(mlflow_home, "short").predict(taught.answers)[0]["answer"] == "7"


def test_the_newest_version_is_the_challenger_and_the_better_one_the_champion(
    tracking: Tracking, parts: ToServe
) -> None:
    name = "gated"
    assert champion_of(tracking, name) is None
    rights = right_of({"first": (0, 50), "luckier": (0, 54), "better": (0, 70), "worse": (60, 70)})

    first = register(tracking, name, trained(tracking, "first"), parts)
    verdict = hold_gate(tracking, first, rights)
    assert (verdict.promoted, verdict.reason) == (True, "promoted: there was no champion")
    verdict = hold_gate(tracking, first, rights)
    assert verdict.reason == "version 1 is the champion already: promoted: there was no champion"

    luckier = register(tracking, name, trained(tracking, "luckier"), parts)
    verdict = hold_gate(tracking, luckier, rights)
    assert not verdict.promoted
    assert verdict.reason.endswith("exact McNemar p = 0.12, above the level 0.05")
    assert aliases(tracking, name) == {"champion": 1, "challenger": 2}
    tags = tracking.client.get_model_version(name, "2").tags
    assert tags["qcrd.gate"] == verdict.reason
    figures = {key.removeprefix("qcrd.gate."): value for key, value in tags.items() if key.startswith("qcrd.gate.")}
    assert figures == {
        "promoted": "false", "against": "1", "level": "0.05", "questions": "100", "only_challenger": "4",
        "only_champion": "0", "p_value": "0.125", "difference": "0.04",
        "low": figures["low"], "high": figures["high"],
    }  # fmt: skip
    assert float(figures["low"]) < 0.04 < float(figures["high"])

    better = register(tracking, name, trained(tracking, "better"), parts)
    assert hold_gate(tracking, better, rights).promoted
    worse = register(tracking, name, trained(tracking, "worse"), parts)
    assert not hold_gate(tracking, worse, rights).promoted
    champion = champion_of(tracking, name)
    assert champion is not None
    assert (champion.version, champion.tags["qcrd.training_id"]) == ("3", "better")
    # An old training that is run again is neither the newest nor judged anew into something else.
    assert register(tracking, name, trained(tracking, "first"), parts).version == "1"
    assert aliases(tracking, name) == {"champion": 3, "challenger": 4}


def test_who_abstains_from_everything_does_not_replace_who_answers(tracking: Tracking, parts: ToServe) -> None:
    """However much better its guesses are: nobody would get an answer any more."""
    name, nothing, much = "shy", {"coverage": "0"}, {"coverage": "0.7"}
    rights = right_of({"one": (0, 10), "two": (0, 40), "three": (0, 70), "four": (0, 100)})

    def comes(training: str, lineage: dict[str, str]) -> Verdict:
        return hold_gate(tracking, register(tracking, name, trained(tracking, training), parts, lineage), rights)

    assert comes("one", nothing).promoted, "there is nobody else"
    assert comes("two", nothing).promoted, "nobody loses anything"
    assert comes("three", much).promoted
    verdict = comes("four", nothing)
    assert not verdict.promoted
    assert verdict.reason.startswith("not promoted: it abstains from every question; challenger 100.0%, champion 70.0%")
    assert tracking.client.get_model_version(name, "4").tags["qcrd.gate.promoted"] == "false"
    assert aliases(tracking, name) == {"champion": 3, "challenger": 4}


def test_the_champion_answers(tracking: Tracking, mlflow_home: Path, parts: ToServe, taught: Taught) -> None:
    hold_gate(tracking, register(tracking, "answers", trained(tracking, "answers"), parts), lambda _: {})
    student = load_registered(mlflow_home, "answers")
    assert student.registered.tags["qcrd.training_id"] == "answers"
    found = student.predict([*taught.answers, {"question": "Who?"}, {"question": "Who?", "choices": ["a", "b"]}])
    assert [row["answer"] for row in found][:4] == list(taught.answers.values())
    assert [row["rationale"] for row in found][:4] == list(taught.rationales.values())
    assert all(0 <= row["quality"] <= 1 for row in found)
    assert student.predict([]) == []
    with pytest.raises(UsageError, match=r"^Cannot answer: question 2 is ' '; it must be a text that is not empty\.$"):
        student.predict(["Who?", " "])
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_the_champion_answers_in_a_process_without_the_project(
    tracking: Tracking, parts: ToServe, taught: Taught, tmp_path: Path
) -> None:
    """Another folder, nothing importable but the recorded requirements: only the registry's address is known."""
    hold_gate(tracking, register(tracking, "travels", trained(tracking, "travels"), parts), lambda _: {})
    mlflow.set_tracking_uri(tracking.backend.uri)
    rows = alone("models:/travels@champion", list(taught.answers), tmp_path, MLFLOW_TRACKING_URI=tracking.backend.uri)
    assert [row["answer"] for row in rows] == list(taught.answers.values())
    assert [row["rationale"] for row in rows] == list(taught.rationales.values())
    assert all(0 <= row["quality"] <= 1 for row in rows)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name_or_alias_is_named_with_those_there_are(
    tracking: Tracking, mlflow_home: Path, parts: ToServe
) -> None:
    register(tracking, "qcrd-known", trained(tracking, "known"), parts)
    with pytest.raises(UnknownName) as error:
        load_registered(mlflow_home, "qcrd-nown")
    assert "Unknown registered model 'qcrd-nown'. Did you mean 'qcrd-known'?" in str(error.value)
    with pytest.raises(UnknownName) as error:
        load_registered(mlflow_home, "qcrd-known")
    assert str(error.value) == (
        "Unknown alias of qcrd-known 'champion'. Allowed: challenger. The gate names a champion, or you do, by hand."
    )


def test_what_cannot_be_registered_says_why(tracking: Tracking, parts: ToServe) -> None:
    logged = trained(tracking, "refused")
    missing = ToServe(Path("/nowhere/model"), None, parts.config, parts.examples)
    with pytest.raises(UsageError, match=r"^Nothing to package: /nowhere/model is not there\. Was the round's"):
        register(tracking, "refused", logged, missing)
    with pytest.raises(TrackingFailed, match=r"Invalid model name 'a/b'\. Names cannot contain '/' or ':'"):
        register(tracking, "a/b", logged, parts)


def test_a_dataset_gives_its_students_their_name() -> None:
    assert [model_name(one) for one in ("lab", "reasoning-gym:gsm_symbolic")] == [
        "qcrd-lab", "qcrd-reasoning-gym-gsm_symbolic",
    ]  # fmt: skip


def test_a_student_of_an_earlier_version_answers_and_never_abstains(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text, number = DataType.string, DataType.double

    class Earlier(PythonModel):  # its code travels with it
        def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ARG002
            assert set(params) == {"samples"}
            row = {"answer": "7", "rationale": "3 + 4 = 7.", "quality": None, "confidence": 0.2}
            return pd.DataFrame([row] * len(model_input), dtype=object)

    mlflow.pyfunc.save_model(
        path=str(tmp_path / "earlier"),
        python_model=Earlier(),
        signature=ModelSignature(
            inputs=Schema([ColSpec(text, "question"), ColSpec(Array(text), "choices", required=False)]),
            outputs=Schema([*(ColSpec(text, one) for one in ("answer", "rationale")),
                            *(ColSpec(number, one) for one in ("quality", "confidence"))]),
            params=ParamSchema([ParamSpec("samples", DataType.long, -1)]),
        ),
    )  # fmt: skip
    loaded = LoadedStudent(Registered("earlier", "1", {}), mlflow.pyfunc.load_model(str(tmp_path / "earlier")))
    for guesses in (False, True):
        assert loaded.predict(["How many?"], guesses=guesses) == [
            {"answer": "7", "rationale": "3 + 4 = 7.", "quality": None, "confidence": 0.2, "abstained": False}
        ]
    assert "Unrecognized params" not in caplog.text
