"""The champion before the teacher: whom it answers, and when it abstains."""

import json
from pathlib import Path

import pytest

from storage.errors import UsageError
from tasks.cascade.champion import Champion
from tasks.cascade.settings import CascadeSettings
from tasks.serving.settings import Question
from tests.conftest import Qcrd
from tests.tasks.conftest import Taught


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


def test_predict_refuses_choices_that_the_dataset_has_not(champions_home: Path, taught: Taught, qcrd: Qcrd) -> None:
    asked = ("predict", "--model", "qcrd-lab", next(iter(taught.answers)))
    refused = qcrd(*asked, "--choice", "a", "--choice", "b", home=champions_home, code=2).stderr
    assert "Question 1: it has choices, and lab has none: leave them out." in refused


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
