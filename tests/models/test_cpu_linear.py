"""Linear layers through oneDNN: the same results, and nothing left behind."""

import pytest
import torch

from models import cpu_linear
from models.cpu_linear import faster_linears, mkl_is_held_back


@pytest.fixture(autouse=True)
def on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(cpu_linear, "mkl_is_held_back", lambda: True)


def network(bias: bool) -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(24, 40, bias=bias), torch.nn.ReLU(), torch.nn.Linear(40, 16, bias=bias))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(64,), (4, 16), (1,)])
def test_outputs_and_gradients_are_the_same(bias: bool, shape: tuple[int, ...]) -> None:
    model = network(bias)
    inputs = torch.randn(*shape, 24, requires_grad=True)
    expected = model(inputs)
    wanted = torch.autograd.grad(expected.square().sum(), [inputs, *model.parameters()])
    with faster_linears(model):
        outputs = model(inputs)
        found = torch.autograd.grad(outputs.square().sum(), [inputs, *model.parameters()])
        with torch.inference_mode():
            torch.testing.assert_close(model(inputs), expected)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("inside", "outside"), [(24, 96), (96, 24)])
def test_a_weights_gradient_is_the_same_bits_either_way_round(inside: int, outside: int) -> None:
    gradient, inputs = torch.randn(300, outside), torch.randn(300, inside)
    plain = cpu_linear._product(gradient.t(), inputs.t())
    assert torch.equal(cpu_linear._weight_gradient(gradient, inputs), plain)


def test_frozen_weights_get_no_gradient() -> None:
    model = network(bias=True)
    model[0].weight.requires_grad_(False)
    inputs = torch.randn(64, 24)
    with faster_linears(model):
        torch.autograd.backward(model(inputs).sum())
    assert model[0].weight.grad is None
    assert model[0].bias.grad is not None
    assert model[2].weight.grad is not None


def test_it_is_used_only_inside_and_only_where_it_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.dtype] = []
    product = cpu_linear._product

    def counted(inputs: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        calls.append(inputs.dtype)
        return product(inputs, *rest)

    monkeypatch.setattr(cpu_linear, "_product", counted)
    model = network(bias=True)
    inputs = torch.randn(64, 24)
    with torch.inference_mode():
        with faster_linears(model):
            model(inputs)
            assert calls == [torch.float32, torch.float32]
            model(inputs[:1])  # too few rows
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert model(inputs).dtype == torch.bfloat16
            model.to(torch.bfloat16)(inputs.bfloat16())
        model.to(torch.float32)(inputs)
    assert len(calls) == 2


def test_a_failure_inside_leaves_the_model_as_it_was() -> None:
    model = network(bias=True)
    with pytest.raises(RuntimeError, match="stop"), faster_linears(model):
        raise RuntimeError("stop")
    assert not any("forward" in vars(layer) for layer in model)


def test_other_machines_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_linear, "mkl_is_held_back", lambda: False)
    model = network(bias=True)
    with faster_linears(model):
        assert not any("forward" in vars(layer) for layer in model)
    assert isinstance(mkl_is_held_back(), bool)
