"""A comparison in MLflow: one run with its configuration, figures and report, however often it is logged."""

from pathlib import Path

import pytest

from tasks.tracking.client import Tracking, open_tracking
from tasks.tracking.comparison import AboutComparison, log_comparison
from tests.tasks.conftest import home_with

CONFIG = {"base": "lab", "variants": {"dss": {"method": {"name": "dss"}}, "qcrd, [new]": {}}}
FIGURES = {50: {"dss/answers": 0.4}, 100: {"dss/answers": 0.5, "qcrd, [new]/answers": 0.6}}


@pytest.fixture
def tracking(mlflow_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return open_tracking(home_with(mlflow_database, tmp_path / "home"))


def about(comparison_id: str = "c1") -> AboutComparison:
    return AboutComparison(comparison_id, "lab: dss, qcrd", CONFIG, FIGURES, {"prefect.flow_run_id": "p-1"})


def test_one_run_has_all_of_it(tracking: Tracking, tmp_path: Path) -> None:
    report = tmp_path / "methods.html"
    report.write_text("<p>first</p>", encoding="utf-8")
    run_id = log_comparison(tracking, about(), report)
    run = tracking.client.get_run(run_id)
    assert tracking.client.get_experiment(run.info.experiment_id).name == "compare"
    assert (run.info.run_name, run.info.status) == ("lab: dss, qcrd", "FINISHED")
    assert run.data.params == {
        "base": "lab", "variants.dss.method.name": "dss", "variants.qcrd_ _new_": "{}",
    }  # fmt: skip
    assert run.data.tags["prefect.flow_run_id"] == "p-1"
    history = tracking.client.get_metric_history(run_id, "dss/answers")
    assert {metric.step: metric.value for metric in history} == {50: 0.4, 100: 0.5}
    assert run.data.metrics["qcrd_ _new_/answers"] == 0.6
    assert {file.path for file in tracking.client.list_artifacts(run_id)} == {"methods.html", "config.yaml"}

    report.write_text("<p>again</p>", encoding="utf-8")
    assert log_comparison(tracking, about(), report) == run_id
    assert len(tracking.client.get_metric_history(run_id, "dss/answers")) == 2
    again = Path(tracking.client.download_artifacts(run_id, "methods.html", str(tmp_path)))
    assert again.read_text(encoding="utf-8") == "<p>again</p>"
    assert log_comparison(tracking, about("c2"), report) != run_id
