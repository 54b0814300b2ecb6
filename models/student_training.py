"""The student's loss on one batch: answers under `predict: `, the many-to-one contrast under `explain: `.

What makes it cheap (docs/distillation.md): the inputs of both tasks are one encoder pass; all rationales of
an example share it; where a scheme must compare rationales they are scored without gradients; and only the chosen ones
get a pass with gradients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from models.losses import (
    IGNORED,
    Candidates,
    Weights,
    choose,
    contrastive_loss,
    mutual_information_loss,
    negative_loss,
    positive_loss,
    token_cross_entropy,
)
from models.methods import READS_CE, MethodConfig
from models.student import Encoded, Student


@dataclass(frozen=True)
class Rationale:
    """One rationale of an example, tokenised.

    Attributes:
        ids: token ids, the end token included.
        score: D's quality in (0, 1); 1 for a positive and 0 for a negative where there is no discriminator.
    """

    ids: Sequence[int]
    score: float


@dataclass(frozen=True)
class TrainingExample:
    """One question, tokenised.

    Attributes:
        predict_ids, explain_ids: the input under either prefix; the latter is not read without rationales.
        answer_ids: the answer target; None where there is none.
        positives, negatives: its rationales; may be empty.
    """

    predict_ids: Sequence[int]
    explain_ids: Sequence[int]
    answer_ids: Sequence[int] | None
    positives: Sequence[Rationale] = ()
    negatives: Sequence[Rationale] = ()

    @property
    def length(self) -> int:
        """What padding is decided by: the longest input and the longest target."""
        targets = [rationale.ids for rationale in (*self.positives, *self.negatives)]
        return len(self.explain_ids) + max((len(ids) for ids in targets), default=0)


@dataclass(frozen=True)
class StudentBatch:
    """B examples as tensors.

    Attributes:
        index: (B,) place of each example in the training set.
        inputs, mask: (R, S) token ids and their mask: the predict rows, then the explain rows.
        answers: (A, L) answer targets, padded with IGNORED; row a belongs to input row a.
        answer_example: (A,) the example of each.
        explain_row: (B,) the input row that explains each example, -1 for none.
        rationales: (K, T) all rationales of all examples, padded with IGNORED.
        positive, negative: (B, P), (B, N) rows of `rationales`, -1 where there is none.
        positive_score, negative_score: of the same shapes, D's quality.
    """

    index: Tensor
    inputs: Tensor
    mask: Tensor
    answers: Tensor
    answer_example: Tensor
    explain_row: Tensor
    rationales: Tensor
    positive: Tensor
    negative: Tensor
    positive_score: Tensor
    negative_score: Tensor

    def to(self, device: torch.device) -> "StudentBatch":
        """The batch on a device."""
        return StudentBatch(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


def collate(examples: Sequence[TrainingExample], index: Sequence[int], pad_id: int) -> StudentBatch:
    """Puts the examples at `index` into one batch."""
    chosen = [examples[place] for place in index]
    inputs = [example.predict_ids for example in chosen if example.answer_ids is not None]
    answers = [example.answer_ids for example in chosen if example.answer_ids is not None]
    answer_example = [row for row, example in enumerate(chosen) if example.answer_ids is not None]
    explain_row: list[int] = []
    rationales: list[Sequence[int]] = []
    tables: dict[str, list[list[int]]] = {"positive": [], "negative": []}
    scores: dict[str, list[list[float]]] = {"positive": [], "negative": []}
    for example in chosen:
        explained = bool(example.positives or example.negatives)
        explain_row.append(len(inputs) if explained else -1)
        inputs += [example.explain_ids] * explained
        for kind, own in (("positive", example.positives), ("negative", example.negatives)):
            tables[kind].append(list(range(len(rationales), len(rationales) + len(own))))
            scores[kind].append([rationale.score for rationale in own])
            rationales += [rationale.ids for rationale in own]
    padded = _padded(inputs, pad_id)
    lengths = torch.tensor([len(ids) for ids in inputs])
    return StudentBatch(
        index=torch.tensor(list(index)),
        inputs=padded,
        mask=(torch.arange(padded.shape[1]) < lengths[:, None]).long(),
        answers=_padded(answers, IGNORED),
        answer_example=torch.tensor(answer_example, dtype=torch.long),
        explain_row=torch.tensor(explain_row),
        rationales=_padded(rationales, IGNORED),
        positive=_padded(tables["positive"], -1),
        negative=_padded(tables["negative"], -1),
        positive_score=_padded_scores(scores["positive"]),
        negative_score=_padded_scores(scores["negative"]),
    )


def _padded(rows: Sequence[Sequence[int] | None], filling: int) -> Tensor:
    """(len(rows), longest) on the right padded integers; (0, 0) for no rows."""
    width = max((len(row) for row in rows if row is not None), default=0)
    table = torch.full((len(rows), width), filling)
    for place, row in enumerate(rows):
        if row:
            table[place, : len(row)] = torch.tensor(list(row))
    return table


def _padded_scores(rows: Sequence[Sequence[float]]) -> Tensor:
    width = max((len(row) for row in rows), default=0)
    table = torch.zeros((len(rows), width))
    for place, row in enumerate(rows):
        table[place, : len(row)] = torch.tensor(row)
    return table


def _by_length(lengths: Tensor) -> list[Tensor]:
    """Rows in two groups, the short and the long ones, cut where padding each to its longest costs least; one group
    where that saves less than a tenth. A student's own negatives are often twice as long as a teacher's rationales.

    Args:
        lengths: (N,) tokens of each row, N > 0.
    """
    longest, order = lengths.sort()
    short = torch.arange(1, len(lengths) + 1, device=lengths.device)
    cost = short * longest + (len(lengths) - short) * longest[-1]  # tokens of both groups after each cut
    cut = int(cost.argmin()) + 1
    return [order[:cut], order[cut:]] if cost[cut - 1] < 0.9 * cost[-1] else [order]


@dataclass
class _Choices:
    """Which rationales were chosen at an example's last choice, for `refresh_every`.

    Attributes:
        table: (examples, 3) column of the positive, column of the negative (-1: none below the margin), visits since.
            -1 visits: never chosen.
        changed: places written to since the last exchange between processes.
    """

    table: Tensor
    changed: set[int] = field(default_factory=set)


class StudentTraining(torch.nn.Module):
    """A student with a method's loss; a `models.trainer.Trainable`.

    Args:
        student: what is trained.
        method: its loss.
        examples: how many examples there are, for what is remembered of each.
    """

    def __init__(self, student: Student, method: MethodConfig, examples: int) -> None:
        super().__init__()
        self.student = student
        self.method = method
        self._choices = _Choices(torch.full((examples, 3), -1, dtype=torch.int32))

    def forward(self, batch: StudentBatch) -> dict[str, Tensor]:
        """The sums over the batch's examples of the loss (eq. 8 without a3 L_D, which has no gradient in the student)
        and of its terms: answer, positive, negative, and the cross-entropies behind them, nats per token.
        """
        method, device = self.method, self.student.device
        batch = batch.to(device)
        encoded = self.student.encode(batch.inputs, batch.mask)
        a1, a2 = method.weights
        zero = torch.zeros((), device=device)
        sums = {"loss": zero}
        answer_rows = torch.arange(len(batch.answers), device=device)
        if len(batch.answers):
            answer_logits = self.student.token_logits(encoded.rows(answer_rows), batch.answers)
            answer = token_cross_entropy(answer_logits, batch.answers).sum()
            sums = {"loss": a1 * answer, "answer": answer}
        elif a1:
            sums["answer"] = zero
        if not a2:
            return sums
        weights = self._weights(batch, encoded)
        positive_ce, negative_ce, rationale_logits = self._chosen(batch, encoded, weights)
        l_pos = positive_loss(positive_ce, weights.positive)
        sums["positive"] = l_pos.sum()
        contrast = l_pos
        if method.uses_negatives:
            l_neg = negative_loss(negative_ce, weights.negative, method.delta)
            sums["negative"] = l_neg.sum()
            # Dropout may lift a chosen one above the margin.
            repelled = (weights.negative > 0) & (negative_ce.detach() < method.delta)
            sums["repelled"] = repelled.any(dim=1).float().sum()
            contrast = contrastive_loss(l_pos, l_neg, method.beta)
        sums["loss"] = sums["loss"] + a2 * contrast.sum()
        if method.name == "mi":  # the figures are the same for every batch, whatever it holds
            sums["mutual_information"] = zero
            if len(batch.answers) and rationale_logits is not None:
                sums["mutual_information"] = self._mutual_information(batch, answer_logits, rationale_logits)
            sums["loss"] = sums["loss"] + method.mi_weight * sums["mutual_information"]
        if torch.is_grad_enabled() and not sums["loss"].requires_grad:
            # No answer, and no rationale of any quality: the gradients are 0, but there must be some.
            sums["loss"] = sums["loss"] + 0.0 * sum(weight.sum() for weight in self.parameters())
        return sums

    # ---- choosing ----

    def _weights(self, batch: StudentBatch, encoded: Encoded) -> Weights:
        """The scheme's weights; for schemes that compare cross-entropies, after a pass without gradients."""
        method = self.method
        mask_p, mask_n = batch.positive >= 0, batch.negative >= 0
        shape_p, shape_n = batch.positive_score, batch.negative_score
        ce_p, ce_n = torch.zeros_like(shape_p), torch.zeros_like(shape_n)
        kept = self._kept(batch)
        if method.scheme in READS_CE:
            # A single positive needs no comparison, and a kept choice none before its time. A single negative is
            # looked at too: one above the margin, as most of an early student's own are, needs no gradients.
            wanted_p = mask_p & (mask_p.sum(dim=1, keepdim=True) > 1) & ~kept[:, None]
            wanted_n = mask_n & ~kept[:, None]
            self._score(batch, encoded, ((batch.positive, wanted_p, ce_p), (batch.negative, wanted_n, ce_n)))
        uniforms = torch.rand((len(mask_p), 2)).to(mask_p.device) if method.scheme == "sample" else None
        weights = choose(
            method.scheme,
            Candidates(ce_p, batch.positive_score, mask_p),
            Candidates(ce_n, batch.negative_score, mask_n),
            method.delta,
            uniforms,
        )
        return self._remembered(batch, weights, kept) if method.refresh_every > 1 else weights

    @torch.no_grad()
    def _score(self, batch: StudentBatch, encoded: Encoded, tables: tuple[tuple[Tensor, Tensor, Tensor], ...]) -> None:
        """Fills in the cross-entropies of the wanted candidates, without gradients and without dropout in the decoder.

        Args:
            tables: (rows of `rationales`, which of them are wanted, the table to fill) of equal shapes.
        """
        places = [wanted.nonzero() for _, wanted, _ in tables]
        rows = torch.cat([table[place[:, 0], place[:, 1]] for (table, _, _), place in zip(tables, places, strict=True)])
        if not len(rows):
            return
        owners = torch.cat([batch.explain_row[place[:, 0]] for place in places])
        targets = batch.rationales[rows]
        ce = tables[0][2].new_zeros(len(rows))
        training = self.student.training
        self.student.eval()
        for part in _by_length((targets != IGNORED).sum(dim=1)):
            ce[part] = self._cross_entropy(encoded.detach(), owners[part], targets[part])[0].to(ce.dtype)
        self.student.train(training)
        for (_, _, filled), place in zip(tables, places, strict=True):
            filled[place[:, 0], place[:, 1]] = ce[: len(place)]
            ce = ce[len(place) :]

    def _chosen(self, batch: StudentBatch, encoded: Encoded, weights: Weights) -> tuple[Tensor, Tensor, Tensor | None]:
        """Cross-entropies with gradients where a weight is above 0, and (for `mi`) the logits behind them."""
        positive_ce, negative_ce = torch.zeros_like(weights.positive), torch.zeros_like(weights.negative)
        place_p = (weights.positive > 0).nonzero()
        place_n = (weights.negative > 0).nonzero() if self.method.uses_negatives else place_p[:0]
        if not len(place_p) + len(place_n):
            return positive_ce, negative_ce, None
        rows = torch.cat([batch.positive[place_p[:, 0], place_p[:, 1]], batch.negative[place_n[:, 0], place_n[:, 1]]])
        owners = batch.explain_row[torch.cat([place_p[:, 0], place_n[:, 0]])]
        ce, logits = self._cross_entropy(encoded, owners, batch.rationales[rows])
        positive_ce = positive_ce.index_put((place_p[:, 0], place_p[:, 1]), ce[: len(place_p)])
        negative_ce = negative_ce.index_put((place_n[:, 0], place_n[:, 1]), ce[len(place_p) :])
        return positive_ce, negative_ce, logits

    def _cross_entropy(self, encoded: Encoded, owners: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) cross-entropies and their (N, T, V) logits."""
        longest = int((targets != IGNORED).sum(dim=1).max())
        targets = targets[:, :longest]  # a batch of short ones need not be as wide as the longest of all
        logits = self.student.token_logits(encoded.rows(owners), targets)
        return token_cross_entropy(logits, targets), logits

    def _mutual_information(self, batch: StudentBatch, answer_logits: Tensor, rationale_logits: Tensor) -> Tensor:
        """Summed over the examples that have both an answer and a rationale (`mi` has one rationale each)."""
        explained = (batch.positive[:, 0] >= 0).nonzero()[:, 0]
        row_of = torch.full((len(batch.index),), -1, device=explained.device)
        row_of[explained] = torch.arange(len(explained), device=explained.device)
        rows = row_of[batch.answer_example]
        both = rows >= 0
        targets = batch.rationales[batch.positive[explained, 0]][:, : rationale_logits.shape[1]]
        return mutual_information_loss(
            answer_logits[both], batch.answers[both], rationale_logits[rows[both]], targets[rows[both]]
        ).sum()

    # ---- what is remembered (refresh_every) ----

    def _kept(self, batch: StudentBatch) -> Tensor:
        """(B,) bool: whether the example's last choice still holds."""
        if self.method.refresh_every == 1 or not self.training:
            return torch.zeros(len(batch.index), dtype=torch.bool, device=batch.index.device)
        visits = self._choices.table[batch.index.cpu(), 2]
        return ((visits >= 0) & (visits < self.method.refresh_every - 1)).to(batch.index.device)

    def _remembered(self, batch: StudentBatch, weights: Weights, kept: Tensor) -> Weights:
        """Kept choices in place of new ones, with today's scores; new ones are noted down."""
        places = batch.index.cpu()
        table = self._choices.table
        last = table[places].to(kept.device)
        new = torch.stack([_column(weights.positive), _column(weights.negative)], dim=1)
        columns = torch.where(kept[:, None], last[:, :2], new.int())
        positive = _at_column(columns[:, 0], batch.positive_score) * (batch.positive >= 0)
        negative = _at_column(columns[:, 1], 1 - batch.negative_score) * (batch.negative >= 0)
        if self.training:
            visits = torch.where(kept, last[:, 2] + 1, torch.zeros_like(last[:, 2]))
            table[places] = torch.cat([columns, visits[:, None]], dim=1).to(table.dtype).cpu()
            self._choices.changed.update(places.tolist())
        return Weights(
            torch.where(kept[:, None], positive, weights.positive),
            torch.where(kept[:, None], negative, weights.negative),
        )

    def memory(self) -> dict[str, Tensor]:
        """See `models.trainer.Trainable`."""
        return {"choices": self._choices.table}

    def remember(self, memory: Mapping[str, Tensor]) -> None:
        """See `models.trainer.Trainable`."""
        if memory["choices"].shape == self._choices.table.shape:
            self._choices.table = memory["choices"].clone()

    def synchronise(self) -> None:
        """Every process learns what the others chose: an example may come to another one next time."""
        if self.method.refresh_every == 1:
            return
        table, changed = self._choices.table, sorted(self._choices.changed)
        news = torch.zeros((len(table), 4), dtype=torch.int32, device=self.student.device)
        news[changed, :3] = table[changed].to(news.device)
        news[changed, 3] = 1
        torch.distributed.all_reduce(news)  # an example is in one process's share, so a sum is a copy
        told = (news[:, 3] == 1).cpu()
        table[told] = news.cpu()[told, :3]
        self._choices.changed.clear()

    def save(self, folder: Path) -> None:
        """Writes the student."""
        self.student.save(folder)


def _column(weights: Tensor) -> Tensor:
    """(B,) the column with the largest weight, -1 where all are 0."""
    if not weights.shape[1]:
        return torch.full((len(weights),), -1, device=weights.device)
    largest, column = weights.max(dim=1)
    return torch.where(largest > 0, column, -1)


def _at_column(column: Tensor, values: Tensor) -> Tensor:
    """(B, K): `values` at each row's column, 0 elsewhere; a row of zeros for column -1 or one that is no more."""
    return values * (torch.arange(values.shape[1], device=values.device) == column[:, None])
