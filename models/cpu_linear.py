"""Faster linear layers on AMD processors, where float32 products otherwise run at half speed.

torch multiplies float32 matrices on a CPU with Intel's MKL, which uses AVX2 instructions on other vendors' processors
even where they have AVX-512. oneDNN, which torch also carries and uses for bfloat16, detects what the processor has:
210 instead of 90 GFLOP/s on one core of an AMD EPYC with AVX-512. On other machines nothing is changed.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from models.processor import AVX512, LADDER, detect_processor

AVX512_AND_MORE = LADDER[LADDER.index(AVX512) :]
FEW_ROWS = 8
"""Products of fewer rows are left to MKL: they take microseconds, and oneDNN has the higher startup cost."""


@contextmanager
def faster_linears(model: torch.nn.Module) -> Iterator[None]:
    """Inside, float32 linear layers of the model on the CPU are computed by oneDNN, gradients too.

    The results are the same up to rounding. Weights are used as they are, so the model may be trained meanwhile.
    """
    layers = [layer for layer in model.modules() if type(layer) is torch.nn.Linear] if mkl_is_held_back() else []
    for layer in layers:
        vars(layer)["forward"] = functools.partial(_forward, layer)  # takes precedence over the class's own
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


@functools.cache
def mkl_is_held_back() -> bool:
    """Whether this is an AMD processor with AVX-512, and a torch with both libraries."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]
        return False
    processor = detect_processor()
    return processor.amd and processor.uses in AVX512_AND_MORE and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _forward(layer: torch.nn.Linear, inputs: Tensor) -> Tensor:
    weight, bias = layer.weight, layer.bias
    plain = (
        inputs.device.type != "cpu"
        or inputs.dtype != torch.float32
        or weight.dtype != torch.float32
        or inputs.numel() < FEW_ROWS * inputs.shape[-1]
        or torch.is_autocast_enabled("cpu")
    )
    if plain:
        return torch.nn.functional.linear(inputs, weight, bias)
    if torch.is_grad_enabled():
        outputs: Tensor = _Linear.apply(inputs, weight)  # type: ignore[no-untyped-call]
        return outputs if bias is None else outputs + bias
    return _product(inputs, weight, bias)


def _product(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """inputs (..., in) times the transpose of weight (out, in): (..., out)."""
    # What torch.compile replaces linear layers with on a CPU; torch has no public name for it (2.13).
    outputs: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return outputs


class _Linear(torch.autograd.Function):
    """The product without bias, and its gradients, which are two more such products."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return _product(inputs, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        rows, seen = gradient.flatten(0, -2), inputs.flatten(0, -2)  # (N, out), (N, in)
        to_inputs = _product(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        to_weight = _weight_gradient(rows, seen) if ctx.needs_input_grad[1] else None
        return to_inputs, to_weight


def _weight_gradient(gradient: Tensor, inputs: Tensor) -> Tensor:
    """The transpose of gradient (N, out) times inputs (N, in): (out, in)."""
    # oneDNN copies the first factor. The other way round the sums are the same, and the narrower one is copied.
    if gradient.shape[1] <= inputs.shape[1]:
        return _product(gradient.t(), inputs.t())
    return _product(inputs.t(), gradient.t()).t()
