"""What MLflow holds after a training has told its story, once, twice, and interrupted; on SQLite, for real."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.entities import DatasetInput, LoggedModelOutput, Run

from storage.errors import UsageError
from tasks.errors import TrackingFailed
from tasks.tracking.client import AboutTraining, QuestionsUsed, Tracking, flattened, open_tracking
from tests.tasks.conftest import home_with

CONFIG = {
    "method": {"name": "qcrd", "beta": 0.2, "voting": True},
    "student": {"lora": None, "targets": ("q", "v"), "empty": {}},
    "dataset": {"paths": {"train set!": "täglich.jsonl"}},
}
TRAIN = QuestionsUsed("lab/train", "aB3dE5gH7jK9", "/data/store", "training", 2000)
VALIDATION = QuestionsUsed("lab/validation", "zY8xW6vU4tS2", "s3://bucket/store", "validation", 400)
TEST = QuestionsUsed("lab/test", "tE5tE5tE5tE5", "/data/store", "test", 800)


@pytest.fixture(scope="module")
def mlflow_home(mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder for the tests of this file; they differ in the ids of their trainings."""
    return home_with(mlflow_database, tmp_path_factory.mktemp("tracking") / "home of runs")


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)  # where MLflow would leave its files if it were not told otherwise


@pytest.fixture
def tracking(mlflow_home: Path, tmp_path: Path) -> Tracking:
    found = open_tracking(mlflow_home)
    assert list(tmp_path.iterdir()) == []
    return found


def about(training_id: str, **others: str) -> AboutTraining:
    return AboutTraining(training_id, "lab", "qcrd", "vote00000001", "run000000001", others)


def steps(first: int, last: int, **figures: float) -> list[dict[str, float]]:
    return [{"step": step, "time": 1.7e9 + step, "loss": 1 / (step + 1), **figures} for step in range(first, last)]


def inputs_of(run: Run) -> list[DatasetInput]:
    return run.inputs.dataset_inputs if run.inputs else []


def outputs_of(run: Run) -> list[LoggedModelOutput]:
    return run.outputs.model_outputs if run.outputs else []


def test_the_parent_run_says_what_the_training_is(tracking: Tracking) -> None:
    run_id = tracking.training(about("says", prefect_run_id="p-1", store="/data/store"), CONFIG, [TRAIN, VALIDATION])
    run = tracking.client.get_run(run_id)
    assert run.info.status == "RUNNING"
    assert run.info.run_name == "lab qcrd says"
    assert tracking.client.get_experiment(run.info.experiment_id).name == "qcrd/lab"
    tags = {key: value for key, value in run.data.tags.items() if key.startswith("qcrd.")}
    assert tags == {
        "qcrd.training_id": "says",
        "qcrd.dataset": "lab",
        "qcrd.method": "qcrd",
        "qcrd.vote_id": "vote00000001",
        "qcrd.run_id": "run000000001",
        "qcrd.prefect_run_id": "p-1",
        "qcrd.store": "/data/store",
    }
    assert run.data.params == {
        "method.name": "qcrd",
        "method.beta": "0.2",
        "method.voting": "true",
        "student.lora": "null",
        "student.targets": '["q", "v"]',
        "student.empty": "{}",
        "dataset.paths.train set_": "täglich.jsonl",
    }
    inputs = inputs_of(run)
    assert {(one.dataset.name, one.dataset.digest, one.tags[0].value) for one in inputs} == {
        (one.name, one.digest, one.context) for one in (TRAIN, VALIDATION)
    }
    sources = {one.dataset.source_type: one.dataset.source for one in inputs}
    assert sources == {"local": '{"uri": "/data/store"}', "s3": '{"uri": "s3://bucket/store"}'}
    text = (Path(tracking.client.download_artifacts(run_id, "config.yaml"))).read_text(encoding="utf-8")
    assert text.startswith("method:\n  name: qcrd\n")
    assert "täglich.jsonl" in text


def test_a_training_that_begins_again_is_the_same_run(tracking: Tracking, mlflow_home: Path) -> None:
    first = tracking.training(about("again"), CONFIG, [TRAIN])
    tracking.finish(first, outcome="FAILED")
    assert tracking.client.get_run(first).info.status == "FAILED"
    other = open_tracking(mlflow_home)
    second = other.training(about("again", prefect_run_id="p-2"), CONFIG | {"new": 1, "method": {"beta": 0.3}}, [TRAIN])
    assert second == first
    run = other.client.get_run(second)
    assert run.info.status == "RUNNING"
    assert run.data.tags["qcrd.prefect_run_id"] == "p-2"
    assert (run.data.params["method.beta"], run.data.params["new"]) == ("0.2", "1")  # MLflow never changes a parameter
    assert len(inputs_of(run)) == 1
    assert other.training(about("another"), CONFIG) != first


def test_rounds_are_nested_runs_with_losses_and_a_model(tracking: Tracking) -> None:
    training = tracking.training(about("rounds"), CONFIG, [TRAIN])
    for t in range(3):
        run_id = tracking.round(training, t)
        assert tracking.losses(run_id, steps(10 * t, 10 * t + 10, l_pos=0.5)) == 10
        logged = tracking.finish_round(training, t, {"accuracy": 0.5 + t / 10}, Path(f"/runs/round-{t}"), VALIDATION)
        assert (logged.run_id, logged.round, logged.training) == (run_id, t, training)
        run = tracking.client.get_run(run_id)
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == training
        assert (run.data.tags["qcrd.round"], run.data.tags["qcrd.training_id"]) == (str(t), "rounds")
        history = tracking.client.get_metric_history(run_id, "loss")
        assert [metric.step for metric in history] == list(range(10 * t, 10 * t + 10))
        assert history[0].timestamp == int((1.7e9 + 10 * t) * 1000)
        assert [(one.model_id, one.step) for one in outputs_of(run)] == [(logged.model_id, t)]
        model = tracking.client.get_logged_model(logged.model_id)
        assert (str(model.status), model.source_run_id, model.name) == ("READY", run_id, f"round-{t}")
        assert model.tags["qcrd.checkpoint"] == f"/runs/round-{t}"
        assert model.params["method.beta"] == "0.2"
        assert model.metrics is not None
        [metric] = model.metrics
        assert (metric.key, metric.value, metric.step) == ("validation/accuracy", 0.5 + t / 10, t)
        assert (metric.dataset_name, metric.dataset_digest) == (VALIDATION.name, VALIDATION.digest)
        assert not Path(model.artifact_location).exists()  # nothing is copied
    curve = tracking.client.get_metric_history(training, "validation/accuracy")
    assert [(metric.step, metric.value) for metric in curve] == [(0, 0.5), (1, 0.6), (2, 0.7)]
    best = tracking.logged_round(training, 2)
    tracking.finish(training, {"accuracy": 0.66, "accuracy_low": math.nan}, best, questions=TEST)
    run = tracking.client.get_run(training)
    assert {one.dataset.name for one in inputs_of(run)} == {TRAIN.name, TEST.name}
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/accuracy"] == 0.66
    assert best is not None
    assert (run.data.tags["qcrd.best_round"], run.data.tags["qcrd.model_id"]) == ("2", best.model_id)
    model = tracking.client.get_logged_model(best.model_id)
    assert {metric.key for metric in model.metrics or ()} == {
        "validation/accuracy", "test/accuracy", "test/accuracy_low"
    }  # fmt: skip


def test_what_is_said_twice_is_there_once(tracking: Tracking, mlflow_home: Path) -> None:
    """A round is killed after some steps, its resumed process repeats some of them and tells the end twice."""
    training = tracking.training(about("twice"), CONFIG)
    run_id = tracking.round(training, 0)
    tracking.losses(run_id, steps(0, 7))
    other = open_tracking(mlflow_home)
    assert other.training(about("twice"), CONFIG) == training
    assert other.round(training, 0) == run_id
    assert other.losses(run_id, steps(5, 12)) == 5
    assert other.losses(run_id, steps(5, 12)) == 0
    logged = [each.finish_round(training, 0, {"accuracy": 0.5}, None, VALIDATION) for each in (tracking, other)]
    assert logged[0] == logged[1] == tracking.logged_round(training, 0)
    assert tracking.logged_round(training, 1) is None
    for each in (tracking, other):
        each.finish(training, {"accuracy": 0.4}, logged[0])
    client = tracking.client
    assert [metric.step for metric in client.get_metric_history(run_id, "loss")] == list(range(12))
    for run, key in ((run_id, "validation/accuracy"), (training, "validation/accuracy"), (training, "test/accuracy")):
        assert len(client.get_metric_history(run, key)) == 1, (run, key)
    experiment = client.get_run(training).info.experiment_id
    assert len(client.search_runs([experiment], "tags.`qcrd.training_id` = 'twice'")) == 2
    assert len(client.search_logged_models([experiment], "tags.`qcrd.training_id` = 'twice'")) == 1
    assert len(outputs_of(client.get_run(run_id))) == 1
    assert len(client.get_logged_model(logged[0].model_id).metrics or ()) == 2


def test_many_steps_at_once(tracking: Tracking) -> None:
    """5,000 steps with 6 figures: 30,000 metrics in requests of at most 1,000, none of which splits a step."""
    run_id = tracking.round(tracking.training(about("many"), CONFIG), 0)
    began = time.monotonic()
    assert tracking.losses(run_id, steps(0, 5000, a=1, b=2, c=3, d=math.nan, e=math.inf)) == 5000
    assert time.monotonic() - began < 60
    assert len(tracking.client.get_metric_history(run_id, "e")) == 5000


def test_figures_of_the_machine_are_logged(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "1")
    training = tracking.training(about("machine"), CONFIG)
    for _ in range(2):  # the second goes on where the first ended
        with tracking.system_metrics(training):
            time.sleep(1.2)
    history = tracking.client.get_metric_history(training, "system/cpu_utilization_percentage")
    assert [metric.step for metric in history] == list(range(len(history)))
    assert len(history) >= 4
    assert tracking.address(training) is None


def test_two_processes_open_a_new_home_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from tasks.tracking.client import AboutTraining, open_tracking\n"
        "tracking = open_tracking(pathlib.Path('home'))\n"
        "print(tracking.training(AboutTraining('same', 'lab', 'dss', 'v', 'r'), {'a': 1}))\n"
        "client = sys.modules['mlflow.telemetry.client'].get_telemetry_client()\n"
        "assert client is None, 'telemetry is on'\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("MLFLOW_DISABLE_TELEMETRY", "CI")}
    environment.pop("DO_NOT_TRACK", None)
    root = str(Path(__file__).parents[3])
    both = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": root},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0] == outputs[1]  # the same run
    assert outputs[0][1] == ""
    assert {path.name for path in tmp_path.iterdir()} == {"home"}


def test_a_database_half_made_by_a_killed_process_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "mlflow"
    folder.mkdir(parents=True)
    (folder / ".mlflow.db.partial-1").write_bytes(b"SQLite format 3\x00 and no more")
    assert open_tracking(tmp_path / "home").training(about("anew"), CONFIG)
    assert {path.name for path in folder.iterdir()} == {"mlflow.db", "mlflow.lock", "artifacts"}


def test_a_server_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(TrackingFailed) as error:
        open_tracking(tmp_path)
    assert str(error.value) == (
        "No MLflow server answers at http://127.0.0.1:9. Start it, or correct MLFLOW_TRACKING_URI; without that "
        "variable runs are kept under the state folder."
    )
    assert time.monotonic() - began < 30


def test_a_servers_address_with_a_password_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:Planted7@127.0.0.1:9")  # pragma: allowlist secret
    with pytest.raises(UsageError) as error:
        open_tracking(tmp_path)
    assert str(error.value) == (
        "MLFLOW_TRACKING_URI must not contain a user name, password or key, because it is stored and shown: set "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
    )


def test_a_databases_password_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nosql://user:Planted7@127.0.0.1/db")  # pragma: allowlist secret
    with pytest.raises(TrackingFailed) as error:
        open_tracking(tmp_path)
    assert str(error.value).startswith("MLflow at nosql://…@127.0.0.1/db: ")
    assert "Planted7" not in str(error.value)


def test_a_folder_of_files_is_no_tracking_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "mlruns"))
    with pytest.raises(TrackingFailed, match=r"^MLflow at .*mlruns: The filesystem .* database backend"):
        open_tracking(tmp_path)


def test_a_path_that_mlflow_cannot_keep_a_database_in(tmp_path: Path) -> None:
    with pytest.raises(TrackingFailed, match=r"100%/mlflow: the path holds one of % \? #\. Choose another --home, or"):
        open_tracking(tmp_path / "100%")


def test_a_deleted_experiment_is_named_with_its_remedy(tracking: Tracking) -> None:
    gone = AboutTraining("gone", "gone", "qcrd", "v", "r")
    run = tracking.client.get_run(tracking.training(gone, CONFIG))
    tracking.client.delete_experiment(run.info.experiment_id)
    with pytest.raises(TrackingFailed) as error:
        tracking.training(gone, CONFIG)
    assert str(error.value) == (
        "MLflow's experiment 'qcrd/gone' was deleted, and a deleted one takes no runs. Restore it: MLFLOW_TRACKING_URI="
        f"{tracking.backend.uri} mlflow experiments restore -x {run.info.experiment_id}"
    )


def test_parameters_are_the_flattened_configuration() -> None:
    assert flattened({"a": {"b": {"c": 1}}, "d": [1, {"e": Path("/x")}]}) == {"a.b.c": "1", "d": '[1, {"e": "/x"}]'}
