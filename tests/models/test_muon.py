"""Muon: with bfloat16 torch's own, bit for bit; with float32 the same updates up to bfloat16's rounding."""

import pytest
import torch

from models.muon import Muon, orthogonalised

SHAPES = [(48, 16), (16, 48), (32, 32)]


def matrices(seed: int = 0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def train(optimizer: torch.optim.Optimizer, weights: list[torch.nn.Parameter], steps: int = 5) -> None:
    for step in range(steps):
        for weight, gradient in zip(weights, matrices(step + 1), strict=True):
            weight.grad = gradient.detach() * (1 + step)
        optimizer.step()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_in_bfloat16_it_is_torchs_own_bit_for_bit(weight_decay: float) -> None:
    ours, theirs = matrices(), matrices()
    settings = {"lr": 3e-3, "weight_decay": weight_decay, "momentum": 0.95}
    train(Muon(ours, precision=torch.bfloat16, **settings), ours)
    train(torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **settings), theirs)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(ours, matrices(), strict=True))


def test_in_float32_the_updates_are_nearly_the_same() -> None:
    plain, half = matrices(), matrices()
    train(Muon(plain, lr=3e-3, precision=torch.float32), plain)
    train(Muon(half, lr=3e-3, precision=torch.bfloat16), half)
    for a, b, before in zip(plain, half, matrices(), strict=True):
        moved = (a - before).norm()
        assert 0 < (a - b).norm() < 0.02 * moved


@pytest.mark.parametrize("shape", SHAPES[:2])  # a random square one has singular values near 0, which stay there
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_an_update_keeps_its_directions_and_loses_its_sizes(shape: tuple[int, int], scale: float) -> None:
    matrix = scale * torch.randn(shape, generator=torch.Generator().manual_seed(3))
    update = orthogonalised(matrix, torch.float32)
    assert update.shape == matrix.shape
    left, sizes, right = torch.linalg.svd(update, full_matrices=False)
    assert 0.5 < sizes.min() <= sizes.max() < 1.3
    before = torch.linalg.svd(matrix, full_matrices=False)
    torch.testing.assert_close(left @ right, before.U @ before.Vh, atol=1e-4, rtol=0)


def test_a_gradient_of_zeros_moves_nothing_and_a_missing_one_is_passed_over() -> None:
    weights = matrices()
    weights[0].grad = torch.zeros_like(weights[0])
    Muon(weights, lr=1.0, precision=torch.float32).step()
    assert all(torch.equal(a, b) for a, b in zip(weights, matrices(), strict=True))


def test_state_is_torchs_own_and_travels() -> None:
    """A training goes on from a checkpoint as if it had not been stopped."""
    whole, first = matrices(), matrices()
    train(Muon(whole, lr=3e-3, precision=torch.float32), whole, steps=2)
    optimizer = Muon(first, lr=3e-3, precision=torch.float32)
    train(optimizer, first, steps=1)
    again = Muon(first, lr=3e-3, precision=torch.float32)
    again.load_state_dict(optimizer.state_dict())
    for weight, gradient in zip(first, matrices(2), strict=True):
        weight.grad = gradient.detach() * 2
    again.step()
    assert all(torch.equal(a, b) for a, b in zip(whole, first, strict=True))


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="Muon only supports 2D parameters"):
        Muon([torch.nn.Parameter(torch.ones(3))], lr=1e-3, precision=torch.float32)
