"""Which rationales were chosen at an example's last choice, for `refresh_every`."""

import torch
from torch import Tensor

from models.losses import Weights


class KeptChoices:
    """Remembers the chosen pair of each example for some of its visits.

    Args:
        examples: how many there are.
        every: a pair is chosen anew at every so many visits of its example.

    Attributes:
        table: (examples, 3) int32: column of the positive, column of the negative (-1: none weighed anything), visits
            since. -1 visits: never chosen.
    """

    def __init__(self, examples: int, every: int) -> None:
        self.every = every
        self.table = torch.full((examples, 3), -1, dtype=torch.int32)
        self._changed: set[int] = set()  # places written to since the last exchange between processes

    def hold(self, index: Tensor) -> Tensor:
        """(B,) bool: whether the last choice of each example still holds."""
        visits = self.table[index.cpu(), 2]
        return ((visits >= 0) & (visits < self.every - 1)).to(index.device)

    def narrow(self, index: Tensor, held: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """The candidates' masks, (B, P) and (B, N), with the kept ones alone where the choice is held."""
        last = self.table[index.cpu()].to(held.device)

        def narrowed(mask: Tensor, column: Tensor) -> Tensor:
            return mask & (~held[:, None] | (torch.arange(mask.shape[1], device=mask.device) == column[:, None]))

        return narrowed(positive, last[:, 0]), narrowed(negative, last[:, 1])

    def note(self, index: Tensor, held: Tensor, weights: Weights) -> None:
        """Notes a visit of the examples, and what was chosen where the choice was not held."""
        places = index.cpu()
        last = self.table[places].to(held.device)
        new = torch.stack([_column(weights.positive), _column(weights.negative)], dim=1)
        columns = torch.where(held[:, None], last[:, :2], new.int())
        visits = torch.where(held, last[:, 2] + 1, torch.zeros_like(last[:, 2]))
        self.table[places] = torch.cat([columns, visits[:, None]], dim=1).to(self.table.dtype).cpu()
        self._changed.update(places.tolist())

    def synchronise(self, device: torch.device) -> None:
        """Every process learns what the others chose: an example may come to another one next time."""
        changed = sorted(self._changed)
        news = torch.zeros((len(self.table), 4), dtype=torch.int32, device=device)
        news[changed, :3] = self.table[changed].to(device)
        news[changed, 3] = 1
        torch.distributed.all_reduce(news)  # an example is in one process's share, so a sum is a copy
        told = (news[:, 3] == 1).cpu()
        self.table[told] = news.cpu()[told, :3]
        self._changed.clear()


def _column(weights: Tensor) -> Tensor:
    """(B,) the column with the largest weight, -1 where all are 0."""
    if not weights.shape[1]:
        return torch.full((len(weights),), -1, device=weights.device)
    largest, column = weights.max(dim=1)
    return torch.where(largest > 0, column, -1)
