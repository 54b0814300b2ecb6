"""`refresh_every`: a chosen pair is kept for so many visits, with today's scores and cross-entropies, then chosen anew;
what is kept survives a checkpoint."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.losses import IGNORED
from models.methods import MethodConfig
from models.student import Student
from models.student_training import Rationale, StudentBatch, StudentTraining, TrainingExample, collate
from tests.models.tiny_round import tiny_config, tiny_examples, tiny_student

METHOD = MethodConfig(delta=50.0, refresh_every=3, beta=1.0)


@pytest.fixture
def student() -> Student:
    torch.set_num_threads(1)
    return tiny_student(tiny_config())


@pytest.fixture
def example(student: Student) -> TrainingExample:
    """One question with three positives and three negatives, and no answer, so that the loss is the contrast alone."""
    good, bad = (
        [Rationale(ids, score) for ids, score in zip(student.target_ids(texts), (0.3, 0.6, 0.9), strict=True)]
        for texts in (["so 3 + 4", "and is 9", "more more more"], ["then 12 = 5", "- - -", "it has 3 has 4"])
    )
    whole = tiny_examples(student, 1)[0]
    return replace(whole, answer_ids=None, positives=good, negatives=bad)


def cross_entropies(student: Student, example: TrainingExample) -> tuple[Tensor, Tensor]:
    """(3,), (3,): of the positives and of the negatives."""
    batch = collate([example], [0], student.pad_id)
    with torch.no_grad():
        encoded = student.encode(batch.inputs, batch.mask)
        ce = student.cross_entropy(encoded.rows(torch.zeros(6, dtype=torch.long)), batch.rationales)
    assert bool((batch.rationales != IGNORED).any(dim=1).all())
    return ce[:3], ce[3:]


def shake(student: Student, seed: int) -> None:
    """Other weights, so that other rationales are the likeliest."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(0.5 * torch.randn(weight.shape, generator=generator))


def loss_of_pair(student: Student, example: TrainingExample, positive: int, negative: int | None) -> float:
    good, bad = cross_entropies(student, example)
    l_pos = example.positives[positive].score * good[positive]
    l_neg = 0.0 if negative is None else (1 - example.negatives[negative].score) * min(float(bad[negative]) - 50.0, 0.0)
    return float(0.5 * (l_pos - l_neg))


def best(student: Student, example: TrainingExample) -> tuple[int, int]:
    """The pair that min-max chooses: the likeliest positive; the largest min(CE - delta, 0), the unlikeliest negative
    below the margin."""
    good, bad = cross_entropies(student, example)
    return int(good.argmin()), int(bad.argmax())


def visit(training: StudentTraining, batch: StudentBatch) -> float:
    return float(training(batch)["loss"].detach())


def test_a_pair_is_kept_for_refresh_every_visits_and_then_chosen_anew(
    student: Student, example: TrainingExample
) -> None:
    training = StudentTraining(student, METHOD, 1).train()
    batch = collate([example], [0], student.pad_id)
    chosen: list[tuple[int, int]] = []
    would: list[tuple[int, int]] = []
    for number in range(9):
        shake(student, number)
        would.append(best(student, example))
        chosen.append(would[-1] if number % 3 == 0 else chosen[-1])
        assert visit(training, batch) == pytest.approx(loss_of_pair(student, example, *chosen[-1]), rel=1e-4)
    assert chosen != would, "else this shows nothing"
    assert len({chosen[0], chosen[3], chosen[6]}) > 1


def test_with_1_every_visit_chooses(student: Student, example: TrainingExample) -> None:
    training = StudentTraining(student, METHOD.model_copy(update={"refresh_every": 1}), 1).train()
    for number in range(5):
        shake(student, number)
        found = visit(training, collate([example], [0], student.pad_id))
        assert found == pytest.approx(loss_of_pair(student, example, *best(student, example)), rel=1e-4)


def test_a_kept_pair_has_todays_scores(student: Student, example: TrainingExample) -> None:
    training = StudentTraining(student, METHOD, 1).train()
    visit(training, collate([example], [0], student.pad_id))
    pair = best(student, example)
    rated = replace(
        example,
        positives=[replace(one, score=one.score / 2) for one in example.positives],
        negatives=[replace(one, score=one.score / 3) for one in example.negatives],
    )
    shake(student, 0)
    found = visit(training, collate([rated], [0], student.pad_id))
    assert found == pytest.approx(loss_of_pair(student, rated, *pair), rel=1e-4)


def test_a_kept_pair_is_not_compared_again(
    student: Student, example: TrainingExample, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = StudentTraining(student, METHOD, 4).train()
    rows = 0
    token_logits = student.token_logits

    def counted(encoded: object, targets: Tensor) -> Tensor:
        nonlocal rows
        rows += 0 if torch.is_grad_enabled() else len(targets)
        return token_logits(encoded, targets)  # type: ignore[arg-type]

    monkeypatch.setattr(student, "token_logits", counted)
    examples = [example] * 4
    compared = []
    for index in ([0, 1], [1, 2], [0, 1], [1], [3, 1, 0]):
        before = rows
        visit(training, collate(examples, index, student.pad_id))
        compared.append(rows - before)
    # 0 and 1; then 2 alone; none; 1 for the fourth time; 3, and 0 only for the third time.
    assert compared == [12, 6, 0, 6, 6]


def test_evaluation_neither_keeps_nor_remembers(student: Student, example: TrainingExample) -> None:
    training = StudentTraining(student, METHOD, 1)
    batch = collate([example], [0], student.pad_id)
    for number in range(3):
        shake(student, number)
        found = visit(training.eval(), batch)
        assert found == pytest.approx(loss_of_pair(student, example, *best(student, example)), rel=1e-4)
    assert bool((training.memory()["choices"] == -1).all())


def test_what_is_kept_survives_a_checkpoint(student: Student, example: TrainingExample) -> None:
    first = StudentTraining(student, METHOD, 3).train()
    batch = collate([example, example, example], [2, 0], student.pad_id)
    visit(first, batch)
    pair = best(student, example)
    stored = {name: value.clone() for name, value in first.memory().items()}
    assert stored["choices"][:, 2].tolist() == [0, -1, 0]
    second = StudentTraining(student, METHOD, 3).train()
    second.remember(stored)
    for number in range(2):
        shake(student, number)
        expected = 2 * loss_of_pair(student, example, *pair)
        assert visit(second, batch) == pytest.approx(expected, rel=1e-4)
    assert stored["choices"][:, 2].tolist() == [0, -1, 0], "what is given is not written to"
    shake(student, 2)
    expected = 2 * loss_of_pair(student, example, *best(student, example))
    assert visit(second, batch) == pytest.approx(expected, rel=1e-4)


def test_the_memory_of_other_examples_is_left_alone(student: Student) -> None:
    training = StudentTraining(student, METHOD, 3)
    training.remember({"choices": torch.zeros((4, 3), dtype=torch.int32)})
    assert training.memory()["choices"].tolist() == [[-1, -1, -1]] * 3


def test_a_kept_negative_that_is_no_more_counts_nothing(student: Student, example: TrainingExample) -> None:
    """In another round the student's own negative may be gone."""
    training = StudentTraining(student, METHOD, 1).train()
    visit(training, collate([example], [0], student.pad_id))
    pair = best(student, example)
    fewer = replace(example, negatives=example.negatives[: pair[1]])
    found = visit(training, collate([fewer], [0], student.pad_id))
    assert found == pytest.approx(loss_of_pair(student, example, pair[0], None), rel=1e-4)
