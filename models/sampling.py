"""How a next token is chosen from logits: the most likely one, or one drawn with a row's own random numbers.

A row's draws depend on its seed and its position alone, so its text is the same whatever shares its batch, in whatever
order, as long as the logits are (batches of other shapes round differently, which now and then turns a token).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

BLOCK = 128
LARGEST_DRAW = 1 - 2**-24


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


def choose(logits: Tensor, draws: Tensor | None, temperature: float, top_p: float, top_k: int | None = None) -> Tensor:
    """The next token of each row.

    Args:
        logits: (N, V); overwritten, because new memory for so many numbers takes longer than computing them.
        draws: (N,) in [0, 1), as `uniforms` makes them; None takes the most likely token.
        temperature: divides the logits; above 1 flattens the distribution.
        top_p: only the fewest most likely tokens whose probabilities reach this sum; 1 keeps all.
        top_k: only so many of the most likely tokens, and `top_p` of what they have together; None keeps all.

    Returns:
        (N,) token ids.
    """
    if draws is None:
        return logits.argmax(1)
    logits = logits.float()
    weights = logits.sub_(logits.amax(1, keepdim=True)).mul_(1 / temperature).exp_()  # probabilities, but for a factor
    if top_k is not None and top_k < weights.shape[1]:
        weights, order = weights.topk(top_k, dim=1)
    elif top_p == 1:
        return _drawn(weights, draws)
    else:
        weights, order = weights.sort(dim=1, descending=True, stable=True)
    cumulative = weights.cumsum(1)
    # A token is kept while those before it do not reach top_p; the first always is.
    weights.masked_fill_(cumulative - weights >= top_p * cumulative[:, -1:], 0)
    return order.gather(1, _drawn(weights, draws)[:, None]).squeeze(1)


def _drawn(weights: Tensor, draws: Tensor) -> Tensor:
    """Inverts each row's cumulative distribution: first finds the block of tokens, then the token in it. Adding up
    blocks is ten times as fast as adding up one long row token by token.

    Args:
        weights: (N, V), 0 or more.
        draws: (N,) in [0, 1).

    Returns:
        (N,) tokens, none of weight 0.
    """
    padding = -weights.shape[1] % BLOCK
    blocks = torch.nn.functional.pad(weights, (0, padding)) if padding else weights
    blocks = blocks.view(len(weights), -1, BLOCK)  # (N, V / BLOCK, BLOCK)
    block, within = _inverse(blocks.sum(2), draws)
    inside, _ = _inverse(blocks[torch.arange(len(block), device=block.device), block], within)
    return (block * BLOCK + inside).clamp_(max=weights.shape[1] - 1)


def _inverse(weights: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """The first index at which the cumulative weight exceeds the drawn share of the whole, and the share of that
    index's own weight at which it does; (N,) both.

    Such an index exists, because in float32 the largest draw times the whole is below the whole, and has weight,
    because the cumulative weight grew there. A GPU adds up in another order and may miss that by one rounding, and
    logits that are no numbers have no such index: the bounds are for them.
    """
    cumulative = weights.cumsum(1)
    wanted = draws[:, None] * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, wanted, right=True).clamp_(max=weights.shape[1] - 1)
    own = weights.gather(1, index).clamp_(min=torch.finfo(weights.dtype).tiny)
    within = 1 - (cumulative.gather(1, index) - wanted) / own
    return index.squeeze(1), within.squeeze(1).clamp_(0, LARGEST_DRAW)
