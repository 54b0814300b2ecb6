"""A champion that nobody has calibrated."""

from pathlib import Path

import pytest

from tasks.serving.settings import Question, ServedConfig
from tasks.tracking.client import AboutTraining, open_tracking
from tasks.tracking.packaging import ToServe
from tasks.tracking.registry import hold_gate, register
from tests.tasks.conftest import Taught, home_with
from tests.tasks.serving.test_served_model import LIMITS


@pytest.fixture(scope="package")
def champions_home(taught: Taught, mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with a champion of the lab, whose confidence nobody has calibrated."""
    home = home_with(mlflow_database, tmp_path_factory.mktemp("champion") / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking = open_tracking(home)
        training = tracking.training(AboutTraining("served", "lab", "qcrd", "v", "r"), {})
        logged = tracking.finish_round(training, 0, {"accuracy": 1.0}, taught.student)
        example = Question(next(iter(taught.answers)))
        parts = ToServe(taught.student, taught.discriminator, ServedConfig(dataset="lab", **LIMITS), [example])
        hold_gate(tracking, register(tracking, "qcrd-lab", logged, parts), lambda _: {})
        hold_gate(tracking, register(tracking, "qcrd-shy", logged, parts, {"refuses_below": "0.6"}), lambda _: {})
    return home
