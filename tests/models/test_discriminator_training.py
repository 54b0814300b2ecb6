"""The discriminator's loss on a batch against one example and one pair at a time; and that it learns."""

from typing import get_args

import pytest
import torch

from models.configs import DiscriminatorConfig, DiscriminatorLoss, NewStudentConfig, StudentConfig
from models.discriminator import Discriminator, make_discriminator
from models.discriminator_training import DiscriminatorTraining, JudgedExample, collate
from models.losses import discriminator_loss
from models.student_loading import make_student

KINDS: tuple[DiscriminatorLoss, ...] = get_args(DiscriminatorLoss)
GOOD = ["3 + 2 = 5. So the answer is 5.", "5, since 3 and 2 are 5.", "So the answer is 5."]
BAD = ["3 _ 2 = bag. So the answer is 6.", "_ _ _"]


@pytest.fixture
def discriminator() -> Discriminator:
    new = NewStudentConfig(hidden=16, layers=1, heads=2, intermediate=32, vocab_size=300)
    student = make_student(StudentConfig(model="new", new=new, dropout=0.0), [*GOOD, *BAD])
    return make_discriminator(DiscriminatorConfig(), student)


def judged(discriminator: Discriminator, question: str, good: list[str], bad: list[str]) -> JudgedExample:
    ids = discriminator.pair_ids([question] * (len(good) + len(bad)), [*good, *bad])
    return JudgedExample(ids[: len(good)], ids[len(good) :])


@pytest.fixture
def examples(discriminator: Discriminator) -> list[JudgedExample]:
    return [
        judged(discriminator, "What is 3 + 2?", GOOD, BAD[:1]),
        judged(discriminator, "Ann has 3 apples and buys 2. How many?", GOOD[:1], BAD),
        judged(discriminator, "No negative?", GOOD[1:], []),
        judged(discriminator, "No positive?", [], BAD[1:]),
        judged(discriminator, "3 and 2?", GOOD[2:], BAD[1:]),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_examples_added_up(
    discriminator: Discriminator, examples: list[JudgedExample], kind: DiscriminatorLoss
) -> None:
    training = DiscriminatorTraining(discriminator, kind)
    sums = training(collate(examples, range(len(examples)), discriminator.pad_id))
    loss = ranking = positive_score = negative_score = torch.zeros(())
    for example in examples:
        if not example.positives or not example.negatives:
            continue
        good, bad = (
            torch.cat([discriminator(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool)) for ids in pairs])
            for pairs in (example.positives, example.negatives)
        )
        yes = [torch.ones(1, len(side), dtype=torch.bool) for side in (good, bad)]
        loss = loss + discriminator_loss(kind, good[None], yes[0], bad[None], yes[1])[0]
        positive_score, negative_score = positive_score + good.sigmoid().mean(), negative_score + bad.sigmoid().mean()
        ranking = ranking + (good[:, None] > bad[None, :]).float().mean()
    expected = {"loss": loss, "positive_score": positive_score, "negative_score": negative_score, "ranking": ranking}
    assert sums.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(sums[name], value, msg=lambda text, name=name: f"{name}: {text}")  # type: ignore[misc]
    gradients = torch.autograd.grad(sums["loss"], list(training.parameters()))
    slow = torch.autograd.grad(loss, list(training.parameters()))
    for gradient, wanted in zip(gradients, slow, strict=True):
        torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_in_which_no_example_counts_has_a_loss_of_0_with_gradients(
    discriminator: Discriminator, examples: list[JudgedExample], kind: DiscriminatorLoss
) -> None:
    training = DiscriminatorTraining(discriminator, kind)
    sums = training(collate(examples, [2, 3], discriminator.pad_id))
    assert [value.item() for value in sums.values()] == [0, 0, 0, 0]
    torch.autograd.backward(sums["loss"])
    # Every parameter has a gradient, of 0: several processes wait for each other's gradients of each of them.
    assert all(weight.grad is not None and not weight.grad.any() for weight in training.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_to_tell_good_from_bad(
    discriminator: Discriminator, examples: list[JudgedExample], kind: DiscriminatorLoss
) -> None:
    training = DiscriminatorTraining(discriminator, kind).train()
    optimizer = torch.optim.AdamW(training.parameters(), lr=1e-2)
    batch = collate(examples, [0, 1, 4], discriminator.pad_id)
    losses = []
    for _ in range(30):
        sums = training(batch)
        optimizer.zero_grad()
        torch.autograd.backward(sums["loss"])
        optimizer.step()
        losses.append(sums["loss"].item())
    assert losses[-1] < losses[0]
    assert sums["ranking"].item() == 3
    good, bad = (discriminator.score(["What is 3 + 2?"] * len(texts), texts) for texts in (GOOD, BAD))
    assert good.min() > 0.8
    assert bad.max() < 0.2


def test_the_length_of_an_example_is_its_longest_pair(examples: list[JudgedExample]) -> None:
    assert examples[0].length == max(len(ids) for ids in (*examples[0].positives, *examples[0].negatives))
    assert JudgedExample([], []).length == 0
