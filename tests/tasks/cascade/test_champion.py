"""The champion before the teacher: whom it answers, and when it abstains."""

import json
from pathlib import Path

import pytest

from storage.errors import UsageError
from tasks.cascade.champion import Champion
from tasks.cascade.settings import CascadeSettings
from tasks.serving.settings import Question, ServedConfig
from tasks.tracking.client import AboutTraining, open_tracking
from tasks.tracking.packaging import ToServe
from tasks.tracking.registry import hold_gate, register
from tests.conftest import Qcrd
from tests.tasks.conftest import Taught, home_with
from tests.tasks.serving.test_served_model import LIMITS


@pytest.fixture(scope="module")
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


def test_it_answers_what_it_is_sure_of(champions_home: Path, taught: Taught) -> None:
    questions = [Question(one) for one in taught.answers]
    sure = Champion(champions_home, "qcrd-lab", CascadeSettings(below=0.0), print).guesses(questions)
    assert [(one.answer, one.abstains, one.version) for one in sure] == [
        (answer, False, "1") for answer in taught.answers.values()
    ]
    unsure = Champion(champions_home, "qcrd-lab", CascadeSettings(below=0.5), print).guesses(questions)
    assert {one.abstains for one in unsure} == {True}
    with pytest.raises(UsageError, match="version 1 promises nothing"):
        Champion(champions_home, "qcrd-lab", CascadeSettings(), print)
    shy = Champion(champions_home, "qcrd-shy", CascadeSettings(), print)
    assert not any(one.abstains for one in shy.guesses(questions)), "it has learned when to (method.abstain_below)"


def test_a_question_that_cannot_be_asked_is_nobody_elses_trouble(champions_home: Path, taught: Taught) -> None:
    champion = Champion(champions_home, "qcrd-lab", CascadeSettings(below=0.0), print)
    good, bad = (Question(one) for one in (next(iter(taught.answers)), " "))
    with pytest.raises(UsageError, match="question 2"):
        champion.guesses([good, bad])
    first, second, third = champion._answer([good, bad, good])
    assert first == third
    assert isinstance(second, UsageError)


def test_at_a_terminal_no_teacher_is_needed_where_the_champion_is_sure(
    champions_home: Path, taught: Taught, qcrd: Qcrd
) -> None:
    nowhere = ("teacher.source=sample", "teacher.url=http://127.0.0.1:9/v1", "teacher.model=none", "teacher.retries=0")
    settings = [part for one in (*nowhere, "cascade.below=0") for part in ("--set", one)]
    done = qcrd("answer", "lab", *taught.answers, *settings, "--json", home=champions_home)
    given = json.loads(done.stdout)
    assert [(one["by"], one["answer"]) for one in given] == [("student", one) for one in taught.answers.values()]
    shown = qcrd(
        "answer", "lab", next(iter(taught.answers)), *settings, "--set", "cascade.below=1", home=champions_home
    )
    assert "answer:    -" in shown.stdout
    assert "from:      nobody: the teacher cannot be asked now" in shown.stdout
    assert "127.0.0.1:9" in shown.stderr  # what is wrong is for whoever runs it
