"""Muon in a selectable precision.

torch's Muon (2.13) orthogonalises its updates in bfloat16. Where the processor only emulates that, those few products
take longer than all the rest of a training step (docs/measurements.md); float32 gives the same updates up to bfloat16's
rounding. `models.precision.product_precision` says which one a machine computes faster.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients a, b, c of the step X -> a X + b (X X^T) X + c (X X^T)^2 X (Jordan et al. 2024, "Muon: an optimizer for
hidden layers in neural networks"). They are steep at 0, and leave singular values between about 0.7 and 1.2."""
ITERATIONS = 5
LEAST_NORM = 1e-7


class Muon(torch.optim.Muon):
    """torch's Muon, its updates orthogonalised in `precision`; with bfloat16 the same bit for bit.

    The learning rate is scaled so that an update is as large as one of Adam's, and one rate serves both (Liu et al.
    2025, arXiv 2502.16982, section 2.2: 0.2 sqrt(max(rows, columns))).

    Args:
        matrices: 2-dimensional parameters inside the layers; embeddings and norms belong to Adam.
        lr: learning rate.
        precision: of the orthogonalisation; parameters and momentum keep their own.
        momentum: of the gradients' running mean; Nesterov's.
        weight_decay: decoupled.

    Raises:
        ValueError: a parameter is not a matrix.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        lr: float,
        precision: torch.dtype,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(matrices, lr=lr, weight_decay=weight_decay, momentum=momentum, adjust_lr_fn="match_rms_adamw")
        self.precision = precision

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes a step with the current gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rate, kept = group["lr"], group["momentum"]
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                mean = state["momentum_buffer"].lerp_(matrix.grad, 1 - kept)
                update = orthogonalised(matrix.grad.lerp(mean, kept), self.precision)
                matrix.mul_(1 - rate * group["weight_decay"])
                matrix.add_(update, alpha=-rate * 0.2 * math.sqrt(max(matrix.shape)))
        return loss


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for the matrices inside a model's layers, AdamW for everything else (embeddings, output layer, norms), as
    one optimizer: one schedule, one state, one checkpoint.

    Args:
        module: what is trained.
        lr: one rate for both, see `Muon`.
        precision: Muon's.
        weight_decay: of matrices and embeddings; biases and norms have none.
    """

    def __init__(self, module: torch.nn.Module, lr: float, precision: torch.dtype, weight_decay: float = 0.0) -> None:
        inner, decayed, others = sorted_parameters(module)
        self._parts: list[torch.optim.Optimizer] = []
        if inner:
            self._parts.append(Muon(inner, lr, precision, weight_decay=weight_decay))
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        if groups := [group for group in groups if group["params"]]:
            self._parts.append(torch.optim.AdamW(groups, lr=lr))
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """The parts work on this optimizer's groups and state."""
        first = 0
        for part in self._parts:
            part.param_groups = self.param_groups[first : first + len(part.param_groups)]
            part.state = self.state
            first += len(part.param_groups)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes a step with the current gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss


def sorted_parameters(module: torch.nn.Module) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """What is trained of a module: matrices inside its layers, embeddings and output layers, and the rest (biases and
    norms)."""
    embeddings = {
        id(weight)
        for name, part in module.named_modules()
        if isinstance(part, torch.nn.Embedding) or name.endswith("lm_head")
        for weight in part.parameters(recurse=False)
    }
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    matrices = [weight for weight in trained if weight.ndim == 2]
    return (
        [weight for weight in matrices if id(weight) not in embeddings],
        [weight for weight in matrices if id(weight) in embeddings],
        [weight for weight in trained if weight.ndim != 2],
    )


def orthogonalised(matrix: Tensor, precision: torch.dtype) -> Tensor:
    """The nearest matrix with singular values near 1, by Newton-Schulz iterations.

    Args:
        matrix: (rows, columns).
        precision: in which it is computed.

    Returns:
        (rows, columns), in that precision.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.size(0) > matrix.size(1)
    x = matrix.to(precision)
    x = x.T if tall else x  # (short, long): the products below are (short, short)
    x = x / x.norm().clamp(min=LEAST_NORM)  # singular values at most 1
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
