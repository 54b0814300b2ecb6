"""Bad rationales as data, and the student as a judge: what the loss adds, and what a judge says."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from models.judge import Judge, judge_input
from models.losses import IGNORED
from models.methods import MethodConfig
from models.prefixes import EXPLAIN, PREDICT, RIGHT, WRONG
from models.scoring import log_probabilities
from models.student import Student
from models.student_training import SideTask, StudentTraining, TrainingExample, collate
from tests.models.tiny_round import tiny_config, tiny_examples, tiny_student


@pytest.fixture(scope="module", params=["t5", "llama"])
def student(request: pytest.FixtureRequest) -> Student:
    torch.set_num_threads(1)
    return tiny_student(tiny_config(request.param)).eval()


def nats_of(student: Student, input_ids: list[int], target_ids: list[int]) -> torch.Tensor:
    """(T,) -log p of each token, one target alone."""
    ids = torch.tensor([input_ids])
    encoded = student.encode(ids, torch.ones_like(ids))
    logits = student.token_logits(encoded, torch.tensor([target_ids]))[0]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(target_ids), reduction="none")


def with_tasks(student: Student, examples: list[TrainingExample]) -> list[TrainingExample]:
    """The second example has none."""
    texts = [("judge: 3 + 4", RIGHT, 0.3), ("explain wrong: so", "she has 5 and 5 more .", 0.7)]
    tasks = [
        SideTask(student.input_ids([one])[0], student.target_ids([other])[0], weight) for one, other, weight in texts
    ]
    return [replace(one, tasks=[] if place == 1 else tasks[: 1 + place % 2]) for place, one in enumerate(examples)]


@pytest.mark.parametrize("method", [{"contrast": "margin"}, {"contrast": "none"}, {"negatives": False}])
def test_side_tasks_are_added_to_the_loss(student: Student, method: dict[str, object]) -> None:
    plain = tiny_examples(student, 6)
    examples = with_tasks(student, plain)
    config = MethodConfig.model_validate({**method, "judge_weight": 0.3, "wrong_weight": 0.7})
    without = StudentTraining(student, MethodConfig.model_validate(method), 6).eval()(
        collate(plain, range(6), student.pad_id)
    )
    sums = StudentTraining(student, config, 6).eval()(collate(examples, range(6), student.pad_id))
    expected = sum(
        task.weight * nats_of(student, list(task.input_ids), list(task.target_ids)).mean()
        for example in examples
        for task in example.tasks
    )
    torch.testing.assert_close(sums["side_tasks"], torch.as_tensor(expected), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(sums["loss"], without["loss"] + sums["side_tasks"], rtol=1e-4, atol=1e-6)
    assert set(sums) == {*without, "side_tasks"}


def test_a_batch_without_any_has_the_term_too(student: Student) -> None:
    batch = collate(tiny_examples(student, 3), range(3), student.pad_id)
    sums = StudentTraining(student, MethodConfig(judge_weight=0.3), 3).eval()(batch)
    assert float(sums["side_tasks"]) == 0
    assert batch.tasks.numel() == 0


def test_a_judge_compares_right_with_wrong(student: Student) -> None:
    judge = Judge(student)
    student.requires_grad_(False)
    questions, rationales = ["Ann has 3.", "2 + 2?", "Ann has 3."], ["so 3", "4", ""]
    scores = judge.score(questions, rationales)
    for question, rationale, score in zip(questions, rationales, scores, strict=True):
        [ids] = student.input_ids([judge_input(question, rationale)])
        right, wrong = (
            torch.exp(-nats_of(student, ids, student.target_ids([word])[0]).sum()) for word in (RIGHT, WRONG)
        )
        assert float(score) == pytest.approx(float(right / (right + wrong)), rel=1e-4)
    assert judge.pair_ids(questions, rationales) == student.input_ids(
        [judge_input(*pair) for pair in zip(questions, rationales, strict=True)]
    )
    assert judge.score([], []).shape == (0,)


def test_log_probabilities_are_sums_over_tokens(student: Student) -> None:
    inputs, targets = [PREDICT + "2 + 2?", EXPLAIN + "Ann", "x"], [["4", "so 4 it is"], [], ["", "4"]]
    training = student.training
    found = log_probabilities(student.train(), inputs, targets)
    assert student.training
    student.train(training)
    for text, wanted, logs in zip(inputs, targets, found, strict=True):
        assert len(wanted) == len(logs)
        for target, log in zip(wanted, logs, strict=True):
            ids = student.target_ids([target])[0]
            assert IGNORED not in ids
            assert log == pytest.approx(-float(nats_of(student, student.input_ids([text])[0], ids).sum()), rel=1e-4)
    assert log_probabilities(student, [], []) == []


def test_without_the_end_token_a_log_probability_is_that_of_a_beginning(student: Student) -> None:
    [ids], [target] = student.input_ids([EXPLAIN + "Ann"]), student.target_ids(["so 4 it is"])
    [[begun]] = log_probabilities(student, [EXPLAIN + "Ann"], [["so 4 it is"]], end=False)
    assert begun == pytest.approx(-float(nats_of(student, ids, target)[:-1].sum()), rel=1e-4)


def test_what_needs_what_is_said() -> None:
    for wrong, said in (
        ({"name": "dss", "judge_weight": 0.1}, "wrong_weight and judge_weight are for qcrd"),
        ({"quality_by": "judge"}, "quality_by: judge needs a judge_weight above 0"),
    ):
        with pytest.raises(ValidationError, match=said):
            MethodConfig.model_validate(wrong)
