"""Muon: with bfloat16 torch's own, bit for bit; with float32 the same updates up to bfloat16's rounding."""

from copy import deepcopy

import pytest
import torch

from models.muon import Muon, MuonAndAdamW, orthogonalised

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


class Net(torch.nn.Module):
    """An embedding, a layer with a bias, a norm, an output layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.Embedding(7, 4)
        self.layer, self.norm, self.lm_head = torch.nn.Linear(4, 6), torch.nn.LayerNorm(6), torch.nn.Linear(6, 7)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.lm_head(self.norm(self.layer(self.words(ids)).tanh()))
        return logits


def take_steps(net: Net, optimizers: list[torch.optim.Optimizer], rates: list[float]) -> None:
    for step, rate in enumerate(rates):
        ids = torch.randint(0, 7, (9,), generator=torch.Generator().manual_seed(step))
        gradients = torch.autograd.grad(net(ids).logsumexp(dim=1).mean(), list(net.parameters()))
        for weight, gradient in zip(net.parameters(), gradients, strict=True):
            weight.grad = gradient
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()


def test_muon_and_adamw_are_the_two_side_by_side() -> None:
    ours, theirs = Net(), Net()
    rates = [0.01, 0.02, 0.005]
    take_steps(ours, [MuonAndAdamW(ours, 1.0, torch.float32, weight_decay=0.1)], rates)
    norms = [weight for weight in theirs.parameters() if weight.ndim == 1]
    decayed = [theirs.words.weight, theirs.lm_head.weight]
    take_steps(
        theirs,
        [
            Muon([theirs.layer.weight], 1.0, torch.float32, weight_decay=0.1),
            torch.optim.AdamW(decayed, weight_decay=0.1),
            torch.optim.AdamW(norms, weight_decay=0.0),
        ],
        rates,
    )
    for name, weight in ours.named_parameters():
        assert torch.equal(weight, theirs.get_parameter(name)), name
        assert not torch.equal(weight, Net().get_parameter(name)), name


def test_its_state_goes_into_another_one() -> None:
    first, second = Net(), Net()
    ours = MuonAndAdamW(first, 1.0, torch.float32)
    take_steps(first, [ours], [0.01, 0.02])
    second.load_state_dict(first.state_dict())
    other = MuonAndAdamW(second, 1.0, torch.float32)
    other.load_state_dict(deepcopy(ours.state_dict()))  # as from a file: tensors of its own
    take_steps(first, [ours], [0.03, 0.01])
    take_steps(second, [other], [0.03, 0.01])
    assert all(torch.equal(one, two) for one, two in zip(first.parameters(), second.parameters(), strict=True))
    assert ours.state_dict()["param_groups"] == other.state_dict()["param_groups"]
