"""The discriminator's loss on one batch (docs/distillation.md): a `models.trainer.Trainable`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.configs import DiscriminatorLoss
from models.discriminator import Discriminator
from models.example_file import Record
from models.losses import discriminator_loss
from models.memory import footprint
from models.student import pad


@dataclass(frozen=True)
class JudgedExample:
    """One question with its good and bad rationales, tokenised by `Discriminator.pair_ids`.

    Attributes:
        positives: ids of (question, rationale) pairs; at least one.
        negatives: likewise; at least one, corrupted positives among them.
    """

    positives: Sequence[Sequence[int]]
    negatives: Sequence[Sequence[int]]

    @property
    def length(self) -> int:
        """Its longest pair, in tokens; decides the padding."""
        return max((len(ids) for ids in (*self.positives, *self.negatives)), default=0)


def packed(example: JudgedExample) -> Record:
    """An example for an `ExampleFile`."""
    return Record([[len(example.positives)], *example.positives, *example.negatives], [])


def unpacked(record: Record) -> JudgedExample:
    """The example of a record that `packed` made."""
    (positives,), *pairs = record.rows
    return JudgedExample(pairs[:positives], pairs[positives:])


@dataclass(frozen=True)
class JudgedBatch:
    """B examples as tensors.

    Attributes:
        ids, mask: (M, S) all pairs of all examples and their mask.
        positive: (B, P) rows of `ids`, -1 where there is none.
        negative: (B, N) likewise.
    """

    ids: Tensor
    mask: Tensor
    positive: Tensor
    negative: Tensor

    def to(self, device: torch.device) -> "JudgedBatch":
        """The batch on a device."""
        return JudgedBatch(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


def collate(examples: Sequence[JudgedExample], index: Sequence[int], pad_id: int) -> JudgedBatch:
    """Puts the examples at `index` into one batch."""
    pairs: list[Sequence[int]] = []
    positive: list[range] = []
    negative: list[range] = []
    for example in (examples[place] for place in index):
        for rows, own in ((positive, example.positives), (negative, example.negatives)):
            rows.append(range(len(pairs), len(pairs) + len(own)))
            pairs += own
    ids, mask = pad(pairs, pad_id)
    return JudgedBatch(ids, mask, pad(positive, -1)[0], pad(negative, -1)[0])


class DiscriminatorTraining(torch.nn.Module):
    """A discriminator with its loss.

    Args:
        discriminator: what is trained.
        kind: which loss.
    """

    def __init__(self, discriminator: Discriminator, kind: DiscriminatorLoss) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.kind = kind

    def forward(self, batch: JudgedBatch) -> dict[str, Tensor]:
        """The sums over the batch's examples of the loss (eq. 2), of the mean scores of positives and of negatives, and
        of "ranking", the share of (positive, negative) pairs in which the positive has the higher score. An example
        without positives or without negatives counts 0 everywhere: leave such examples out.
        """
        batch = batch.to(self.discriminator.device)
        mask_p, mask_n = batch.positive >= 0, batch.negative >= 0
        logits = self.discriminator(batch.ids, batch.mask)  # (M,)
        positive, negative = logits[batch.positive], logits[batch.negative]  # -1 reads some row, and is masked
        loss = discriminator_loss(self.kind, positive, mask_p, negative, mask_n).sum()
        with torch.no_grad():
            pairs = mask_p[:, :, None] & mask_n[:, None, :]  # (B, P, N)
            right = (positive[:, :, None] > negative[:, None, :]) & pairs
            both = pairs.any(dim=(1, 2))
            return {
                "loss": loss,
                "positive_score": _sum_of_means(positive.sigmoid(), mask_p & both[:, None]),
                "negative_score": _sum_of_means(negative.sigmoid(), mask_n & both[:, None]),
                "ranking": _sum_of_means(right.float().flatten(1), pairs.flatten(1)),
            }

    def step_bytes(self, batch: JudgedBatch) -> int:
        """See `models.trainer.Trainable`."""
        encoder = self.discriminator.encoder
        return footprint(encoder, encoder.config, decoder=False).training_bytes(*batch.ids.shape)

    def memory(self) -> dict[str, Tensor]:
        """See `models.trainer.Trainable`: nothing."""
        return {}

    def remember(self, memory: Mapping[str, Tensor]) -> None:
        """See `models.trainer.Trainable`."""

    def synchronise(self) -> None:
        """See `models.trainer.Trainable`."""

    def save(self, folder: Path) -> None:
        """Writes the discriminator."""
        self.discriminator.save(folder)


def _sum_of_means(values: Tensor, mask: Tensor) -> Tensor:
    """The sum over rows of each row's mean over the mask; empty rows count 0."""
    return ((values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)).sum()
