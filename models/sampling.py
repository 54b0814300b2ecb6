"""How a next token is chosen from logits: the most likely one, or one drawn with a row's own random numbers.

A row's draws depend on its seed and its position alone, so its text is the same whatever shares its batch, in whatever
order, as long as the logits are (batches of other shapes round differently, which now and then turns a token).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """Random numbers of rows; a longer stream begins with the shorter one.

    Args:
        seeds: one a row, from 0 to 2**64 - 1. Consecutive seeds are as independent as any (Philox is counter-based).
        count: how many for each row.

    Returns:
        (rows, count) float32 in [0, 1), multiples of 2**-24.
    """
    rows = np.empty((len(seeds), count), dtype=np.float32)
    for row, seed in zip(rows, seeds, strict=True):
        np.random.Generator(np.random.Philox(key=seed)).random(out=row, dtype=np.float32)
    return torch.from_numpy(rows)


def choose(logits: Tensor, draws: Tensor | None, temperature: float, top_p: float) -> Tensor:
    """The next token of each row.

    Args:
        logits: (N, V).
        draws: (N,) in [0, 1); None takes the most likely token.
        temperature: divides the logits; above 1 flattens the distribution.
        top_p: only the fewest most likely tokens whose probabilities reach this sum; 1 keeps all.

    Returns:
        (N,) token ids.
    """
    if draws is None:
        return logits.argmax(1)
    probabilities = (logits.float() / temperature).softmax(1)
    if top_p == 1:
        return _inverse(probabilities.cumsum(1), draws)
    probabilities, order = probabilities.sort(dim=1, descending=True, stable=True)
    cumulative = probabilities.cumsum(1)
    # The tokens up to the first whose cumulative probability reaches top_p: all that come after get no mass.
    last = (cumulative < top_p).sum(1, keepdim=True).clamp_(max=logits.shape[1] - 1)
    cumulative = cumulative.minimum(cumulative.gather(1, last))
    return order.gather(1, _inverse(cumulative, draws)[:, None]).squeeze(1)


def _inverse(cumulative: Tensor, draws: Tensor) -> Tensor:
    """(N,) the first index whose cumulative mass exceeds the drawn share of the whole. Such a token has mass of its
    own, and there is one: draws are at most 1 - 2**-24, so in float32 too the share stays below the whole."""
    wanted = draws[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, wanted, right=True).squeeze(1)
