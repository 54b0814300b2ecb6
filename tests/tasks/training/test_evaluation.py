"""What a student answers, right or wrong; and which questions count."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import tasks.training.asking as asking_module
from storage.datasets.definition import Example
from storage.datasets.registry import get_dataset
from storage.errors import NothingToDo, UsageError
from tasks.questions.sets import DatasetConfig
from tasks.questions.stored import store_examples
from tasks.serving.answering import Answered
from tasks.serving.deciding import Explained
from tasks.serving.settings import ABSTAINS_ALWAYS, AskingConfig, Question
from tasks.training.calibration import calibrate
from tasks.training.evaluation import evaluate_round
from tasks.training.folder import Training
from tasks.training.outcomes import Evaluation, Prepared
from tasks.training.spec import INITIAL
from tasks.training.student import train_round
from tests.tasks.training.world import World, small_world, spec_of, tiny_training


def said(answer: str | None, rationale: str, its: str | None) -> Answered:
    logs = {one: -1.0 for one in (answer, its) if one is not None}
    return Answered(answer, rationale, its, rationales=(Explained(rationale, its),), logs=logs)


ANSWERS = {  # of the validation questions, by their number of cards: right, wrong, unreadable, too long to be asked
    "0": said("3", "0 + 3 = 3.", "3"),
    "1": said("5", "1 + 3 = 4.", "4"),
    "2": said(None, "no idea", None),
    "3": Answered(too_long=True),
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return small_world(tmp_path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Question], AskingConfig]]:
    """The student says what the table says."""
    calls: list[tuple[list[Question], AskingConfig]] = []

    def ask(
        _dataset: Any, _student: Any, questions: list[Question], config: AskingConfig, *_: Any, **__: Any
    ) -> list[Answered]:
        calls.append((questions, config))
        return [ANSWERS.get(question.question.split()[2], ANSWERS["2"]) for question in questions]

    monkeypatch.setattr(asking_module, "ask", ask)
    return calls


def evaluated(prepared: Prepared, part: Any = "validation") -> Evaluation:
    return evaluate_round(prepared.folder, INITIAL, part)


def predictions(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.store.query(
        "SELECT p.*, question FROM predictions p JOIN examples USING (example_id) ORDER BY model, p.split, question"
    ).to_pylist()
    return found


def test_answers_are_counted_and_stored(world: World, asked: list[tuple[list[Question], AskingConfig]]) -> None:
    prepared = world.prepare()
    found = evaluated(prepared)
    assert (found.questions, found.answered, found.correct, found.too_long) == (4, 2, 1, 1)
    assert found.accuracy == 0.25
    assert found.explained == 2
    assert found.explanation_accuracy == 0.5  # of all questions, not of those explained
    assert found.consistency == 0.25
    assert (found.judged_by, found.asked) == ("gold", None)
    assert Training(prepared.folder).evaluation(INITIAL, "validation") == found
    rows = predictions(world)
    spec = spec_of(prepared)
    assert [(row["answer"], row["rationale"], row["correct"]) for row in rows] == [
        ("3", "0 + 3 = 3.", True),
        ("5", "1 + 3 = 4.", False),
        (None, "no idea", False),
        (None, None, False),
    ]
    assert {row["model"] for row in rows} == {f"{spec.name}@initial"}
    assert {(row["split"], row["dataset"], row["run_id"]) for row in rows} == {("validation", "lab", spec.training_id)}
    assert len(asked) == 1


def test_once_is_enough(world: World, asked: list[tuple[list[Question], AskingConfig]]) -> None:
    prepared = world.prepare()
    assert evaluated(prepared) == evaluated(prepared)
    assert len(asked) == 1
    (Training(prepared.folder).round(INITIAL) / "validation.json").unlink()
    evaluated(prepared)
    assert len(asked) == 2
    assert len(predictions(world)) == 4, "the same rows"


def test_test_questions_are_asked_again_only_where_they_are_others(
    world: World, asked: list[tuple[list[Question], AskingConfig]]
) -> None:
    few = DatasetConfig(name="lab", test_limit=1)
    first = evaluated(world.prepare(dataset=few), "test")
    assert (first.questions, len(asked)) == (1, 1)
    whole = world.prepare()
    assert whole.folder == world.prepare(dataset=few).folder, "the training is the same"
    world.prepare()
    second = evaluated(whole, "test")
    assert (second.questions, len(asked)) == (3, 2)
    assert second.asked != first.asked
    assert evaluated(whole, "test") == second
    world.ask("Ben has 1 new card. How many?", "1", "test")
    assert evaluated(world.prepare(), "test").questions == 4
    assert len(asked) == 3


def test_a_training_without_test_questions_says_so(world: World) -> None:
    prepared = world.prepare(dataset=DatasetConfig(name="lab", test_split=None))
    with pytest.raises(NothingToDo, match=r"no test questions \(dataset\.test_split is null\)"):
        evaluated(prepared, "test")


@pytest.mark.parametrize(
    ("method", "explain", "part", "writes"),
    [
        ({}, True, "validation", "answer and rationale"),
        ({}, False, "validation", "answer"),
        ({}, False, "test", "answer and rationale"),
        ({"name": "dss"}, True, "validation", "answer and rationale"),
        ({"name": "finetune"}, True, "test", "answer"),
        ({"name": "single-task"}, False, "validation", "rationale, then answer"),
        ({"name": "dss", "targets": "answer-first"}, True, "validation", "answer, then rationale"),
        ({"name": "dss", "targets": "answer-first"}, True, "test", "answer, then rationale"),
    ],
)
def test_students_are_asked_for_what_they_were_trained_to_write(
    world: World,
    asked: list[tuple[list[Question], AskingConfig]],
    method: dict[str, Any],
    explain: bool,
    part: Any,
    writes: str,
) -> None:
    config = tiny_training(method=method, rounds={"explain_validation": explain, "answer_tokens": 7})
    found = evaluated(world.prepare(config), part)
    ((_, asking),) = asked
    assert (asking.writes, asking.answer_tokens) == (writes, 7)
    assert (found.explanation_accuracy is None) == (found.consistency is None) == (writes == "answer")


def test_unlabelled_questions_count_only_where_none_has_a_label(
    world: World, asked: list[tuple[list[Question], AskingConfig]]
) -> None:
    world.ask("Ben has 9 cards and no label", None, "validation")
    found = evaluated(world.prepare())
    assert (found.questions, found.judged_by) == (4, "gold")
    assert [len(questions) for questions, _ in asked] == [4]


def test_majority_answers_stand_in_for_labels(tmp_path: Path, asked: list[tuple[list[Question], AskingConfig]]) -> None:
    world = World(tmp_path)
    for number in range(30):
        key = world.ask(f"Ben has {number} cards and finds some.", None)
        world.sample(key, ("so it is", str(number + 3)))
    world.ask("Ben has 70 unasked cards.", None)
    world.vote()
    carved = DatasetConfig(name="lab", validation_split=None, test_split=None, validation_share=0.3)
    found = evaluated(world.prepare(tiny_training(method={"labels": "teacher"}), carved))
    assert found.judged_by == "teacher"
    assert 0 < found.questions < 20
    assert len(asked[0][0]) == found.questions


@pytest.mark.parametrize("splits", [("unlabelled", None), ("validation", "unlabelled")])
def test_no_label_at_all_is_said_before_anything_is_trained(world: World, splits: tuple[str, str | None]) -> None:
    world.ask("Ben has 9 cards", None, "unlabelled")
    validation, test = splits
    with pytest.raises(NothingToDo, match=r"None of the 1 unlabelled questions of 'lab' has a gold label, nor a majo"):
        world.prepare(dataset=DatasetConfig(name="lab", validation_split=validation, test_split=test))
    assert not (world.root / "trainings").exists()


def test_a_real_student_of_a_round_is_asked(world: World) -> None:
    prepared = world.prepare(tiny_training(method={"name": "dss"}))
    train_round(prepared.folder, 0)
    told: list[tuple[int, int]] = []
    found = evaluate_round(prepared.folder, 0, "validation", lambda *one: told.append(one))
    assert (found.t, found.questions) == (0, 4)
    assert told[-1] == (8, 8), "an answer and a rationale each"
    rows = predictions(world)
    assert {row["model"] for row in rows} == {f"{spec_of(prepared).name}@0"}
    assert found.correct == sum(row["correct"] for row in rows)
    assert found.answered == sum(row["answer"] is not None for row in rows)
    outcome = json.loads((Training(prepared.folder).round(0) / "validation.json").read_text())
    assert outcome["accuracy"] == found.accuracy


def test_an_evaluation_has_a_part_that_exists() -> None:
    with pytest.raises(ValidationError):
        Evaluation.model_validate({"t": 0, "part": "tset", "questions": 1, "answered": 1, "correct": 1, "accuracy": 1})


def test_chosen_answers_are_stored_beside_the_bare_ones(world: World) -> None:
    config = tiny_training(answering={"samples": (2, 0)})
    prepared = world.prepare(config)
    calibrated = calibrate(prepared.folder, INITIAL)
    assert [one.samples for one in calibrated.decisions] == [2, 0]
    assert calibrated.questions == 4
    assert calibrate(prepared.folder, INITIAL) == calibrated
    validation, test = evaluated(prepared), evaluated(prepared, "test")
    assert [one.samples for one in validation.decided] == [0], "fitted to themselves, to choose between rounds"
    assert [one.samples for one in test.decided] == [2, 0]
    assert test.given_correct == test.decided[0].correct
    rows = predictions(world)
    given = [row for row in rows if row["split"] == "test"]
    assert all((row["given_answer"] is None) == (row["confidence"] is None) for row in given)
    assert sum(row["given_correct"] for row in given) == test.given_correct
    rights = spec_of(prepared).test.rights(world.store, spec_of(prepared).student_name(INITIAL))  # type: ignore[union-attr]
    assert sum(rights.values()) == test.given_correct
    assert sum(one.questions for one in test.decided[0].reliability) == test.questions


def test_a_student_without_rationales_samples_none(world: World) -> None:
    prepared = world.prepare(tiny_training(method={"name": "finetune"}, answering={"samples": (4, 16)}))
    assert [one.samples for one in calibrate(prepared.folder, INITIAL).decisions] == [0]
    assert [one.samples for one in evaluated(prepared, "test").decided] == [0]


def sure_student(world: World, monkeypatch: pytest.MonkeyPatch, wrong: int) -> None:
    """120 validation and 60 test questions to a student that is sure of four in five and right there, but for every
    `wrong`-th; of the others it is unsure and mostly wrong. Of one question in twenty it has no answer."""
    numbers: dict[str, int] = {}
    for split, count in (("many", 120), ("many-test", 60)):
        found = [Example(f"Eva has {one} pens for the {split} and 1 more?", (), str(one + 1)) for one in range(count)]
        store_examples(world.store, get_dataset("lab"), split, found)
        numbers |= {one.question: place for place, one in enumerate(found)}

    def ask(_dataset: Any, _student: Any, questions: list[Question], *_: Any, **__: Any) -> list[Answered]:
        told = []
        for one in questions:
            place = numbers[one.question]
            right, other = str(place + 1), str(place + 2)
            if place % 20 == 7:
                told.append(Answered(None, "no idea", None, rationales=(Explained("no idea", None),)))
            elif place % 5 == 3:
                answer = right if place % 4 == 0 else other
                logs = {answer: -1.5, "99": -1.6}
                told.append(Answered(answer, "r", "99", rationales=(Explained("r", "99"),), logs=logs))
            else:
                answer = other if place % wrong == wrong - 1 else right
                told.append(Answered(answer, "r", answer, rationales=(Explained("r", answer),), logs={answer: -0.01}))
        return told

    monkeypatch.setattr(asking_module, "ask", ask)


MANY = DatasetConfig(name="lab", validation_split="many", test_split="many-test")


def test_a_threshold_is_certified_by_questions_that_nothing_else_reads(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sure_student(world, monkeypatch, wrong=1000)
    config = tiny_training()
    everything = world.prepare(config, MANY)
    prepared = world.prepare(config.model_copy(update={"risk": 0.1}), MANY)
    spec = spec_of(prepared)
    assert prepared.training_id != everything.training_id
    assert spec.certifying is not None
    fitting, certifying = set(spec.validation.ids(world.store)), set(spec.certifying.ids(world.store))
    assert not fitting & certifying
    assert fitting | certifying == set(spec_of(everything).validation.ids(world.store))
    validation = evaluated(prepared)
    assert validation.questions == len(fitting), "the round is chosen by these alone"
    calibrated = calibrate(prepared.folder, INITIAL)
    promise = calibrated.promise
    assert calibrated.questions == len(fitting)
    assert promise is not None
    assert promise.questions == len(certifying)
    assert promise.certified
    assert promise.bound <= 0.1
    assert promise.wrong == 0
    assert set(calibrated.sources) == {"combination", "answer probability", "votes"}, "nobody judges quality"
    assert list(calibrated.sources.values()) == sorted(calibrated.sources.values())
    test = evaluated(prepared, "test")
    found = test.abstention
    assert found is not None
    rows = [row for row in predictions(world) if row["split"] == "many-test"]
    given = [row for row in rows if row["confidence"] is not None and row["confidence"] >= promise.abstain_below]
    assert (found.questions, found.answered) == (60, len(given))
    assert found.wrong == sum(not row["given_correct"] for row in given) == 0
    assert 0.6 < found.coverage < 0.9
    assert found.coverage_interval[0] < found.coverage < found.coverage_interval[1]
    assert found.risk == 0
    assert test.decided[0].aurc is not None
    assert test.decided[0].risks[-1] == pytest.approx(1 - test.given_accuracy)


def test_a_student_that_is_wrong_where_it_is_sure_answers_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sure_student(world, monkeypatch, wrong=4)
    prepared = world.prepare(tiny_training().model_copy(update={"risk": 0.1}), MANY)
    evaluated(prepared)
    promise = calibrate(prepared.folder, INITIAL).promise
    assert promise is not None
    assert (promise.certified, promise.abstain_below) == (False, ABSTAINS_ALWAYS)
    assert promise.told.startswith("no threshold keeps the risk at 10.0%, so the student abstains from every question")
    found = evaluated(prepared, "test").abstention
    assert found is not None
    assert (found.answered, found.wrong, found.risk, found.risk_interval) == (0, 0, None, (0, 1))


def test_a_risk_that_can_come_to_nothing_is_refused_before_anything_is_trained(world: World) -> None:
    with pytest.raises(UsageError) as error:
        world.prepare(tiny_training().model_copy(update={"risk": 0.5}), DatasetConfig(name="lab"))
    assert "registry.risk is 0.5, which takes at least 5 certifying questions, all answered rightly" in str(error.value)
    with pytest.raises(UsageError, match=r"needs a student that says how sure it is, and answering.samples is \[\]"):
        world.prepare(tiny_training(answering={"samples": ()}).model_copy(update={"risk": 0.9}))
