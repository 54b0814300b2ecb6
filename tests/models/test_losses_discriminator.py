"""The discriminator's losses against slow references: one example at a time, float64, with gradients."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.configs import DiscriminatorLoss
from models.losses import discriminator_loss

KINDS: tuple[DiscriminatorLoss, ...] = get_args(DiscriminatorLoss)
Tables = tuple[Tensor, Tensor, Tensor, Tensor]


def slow_discriminator_loss(
    kind: DiscriminatorLoss, positive: Tensor, positive_mask: Tensor, negative: Tensor, negative_mask: Tensor
) -> Tensor:
    losses = []
    for row in range(len(positive)):
        good = [1 / (1 + (-z).exp()) for z, real in zip(positive[row], positive_mask[row], strict=True) if real]
        bad = [1 / (1 + (-z).exp()) for z, real in zip(negative[row], negative_mask[row], strict=True) if real]
        if not good or not bad:
            losses.append(torch.zeros((), dtype=torch.float64))
            continue
        above, below = torch.stack(good).exp().sum(), torch.stack(bad).exp().sum()
        of_good, of_bad = -torch.stack(good).log().mean(), -(1 - torch.stack(bad)).log().mean()
        losses.append(
            {
                "ratio": -(above / below).log(),
                "infonce": -(above / (above + below)).log(),
                "bce": (of_good + of_bad) / 2,
            }[kind]
        )
    return torch.stack(losses)


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    rows = draw(st.integers(1, 4))
    parts = []
    for columns in (draw(st.integers(0, 4)), draw(st.integers(0, 4))):
        mask = torch.rand(rows, columns, generator=generator) < 0.6
        logits = 3 * torch.randn(rows, columns, generator=generator, dtype=torch.float64)
        parts += [logits.masked_fill(~mask, torch.nan).requires_grad_(), mask]  # padding must not be read
    return (parts[0], parts[1], parts[2], parts[3])


@pytest.mark.parametrize("kind", KINDS)
@given(case=tables())
@settings(deadline=None)
def test_values_and_gradients_agree_with_the_reference(kind: DiscriminatorLoss, case: Tables) -> None:
    logits = (case[0], case[2])
    fast, slow = discriminator_loss(kind, *case), slow_discriminator_loss(kind, *case)
    torch.testing.assert_close(fast, slow)
    found = torch.autograd.grad(fast.sum(), logits)  # there is a gradient even where no example counts
    expected: tuple[Tensor | None, ...] = (None, None)
    if slow.requires_grad:
        expected = torch.autograd.grad(slow.sum(), logits, allow_unused=True)
    for gradient, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient) if wanted is None else wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind: DiscriminatorLoss) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    logits = [torch.randn(3, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]
    assert torch.autograd.gradcheck(lambda a, b: discriminator_loss(kind, a, mask, b, mask.flip(0)), logits)


@pytest.mark.parametrize("kind", KINDS)
@given(size=st.floats(1, 1e4))
@settings(deadline=None)
def test_huge_outputs_stay_finite(kind: DiscriminatorLoss, size: float) -> None:
    yes = torch.ones(2, 1, dtype=torch.bool)
    positive = torch.tensor([[size], [-size]], requires_grad=True)
    loss = discriminator_loss(kind, positive, yes, -positive, yes)
    (gradient,) = torch.autograd.grad(loss.sum(), positive)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()
    assert loss[0] < loss[1]


def test_the_ratio_is_bounded() -> None:
    two, one = torch.tensor([[True, True]]), torch.tensor([[True, False]])
    right, wrong = torch.full((1, 2), 99.0), torch.full((1, 2), -99.0)
    assert discriminator_loss("ratio", right, two, wrong, two).item() == pytest.approx(-1)
    assert discriminator_loss("ratio", right, one, wrong, two).item() == pytest.approx(math.log(2) - 1)


def test_infonce_is_never_negative() -> None:
    yes = torch.ones(1, 2, dtype=torch.bool)
    best = discriminator_loss("infonce", torch.full((1, 2), 99.0), yes, torch.full((1, 2), -99.0), yes)
    assert best.item() == pytest.approx(-math.log(math.e / (math.e + 1)))


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_outputs_are_taken_in_float32(kind: DiscriminatorLoss) -> None:
    yes = torch.ones(1, 1, dtype=torch.bool)
    logit = torch.full((1, 1), 1.5, dtype=torch.bfloat16)
    loss = discriminator_loss(kind, logit, yes, -logit, yes)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow_discriminator_loss(kind, logit.double(), yes, -logit.double(), yes).item())
