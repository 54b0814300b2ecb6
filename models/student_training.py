"""The student's loss on one batch: answers under `predict: `, rationales under `explain: `, each target weighed by the
method's objective (`models.objectives`).

What makes it cheap (docs/distillation.md): the inputs of both tasks are one encoder pass; all rationales of
an example share it; where an objective must compare rationales they are scored without gradients; and only those that
weigh something get a pass with gradients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from models.example_file import Record
from models.kept_choices import KeptChoices
from models.losses import IGNORED, Candidates, Weights, mean_over_parts, mean_over_tokens, token_nats
from models.memory import room
from models.methods import MethodConfig
from models.objectives.objective import Passed
from models.objectives.registry import objective_of
from models.student import Encoded, Student

SCORING_SHARE = 4  # candidates are compared in a quarter of a step's room: what the answers keep is there already


@dataclass(frozen=True)
class Rationale:
    """One rationale of an example, tokenised.

    Attributes:
        ids: token ids, the end token included.
        score: D's quality in (0, 1); 1 for a positive and 0 for a negative where there is no discriminator.
        own: whether the student wrote it itself.
        answer_tokens: how many of the first ids are the answer, where it comes before the rationale; else 0.
    """

    ids: Sequence[int]
    score: float
    own: bool = False
    answer_tokens: int = 0


@dataclass(frozen=True)
class SideTask:
    """A further input of an example with its target, tokenised; the same for every objective.

    Attributes:
        input_ids, target_ids: token ids.
        weight: of its CE in the loss.
    """

    input_ids: Sequence[int]
    target_ids: Sequence[int]
    weight: float


@dataclass(frozen=True)
class TrainingExample:
    """One question, tokenised.

    Attributes:
        predict_ids, explain_ids: the input under either prefix; the latter is not read without rationales.
        answer_ids: the answer target; None where there is none.
        positives, negatives: its rationales; may be empty.
        tasks: what else the student learns of it.
    """

    predict_ids: Sequence[int]
    explain_ids: Sequence[int]
    answer_ids: Sequence[int] | None
    positives: Sequence[Rationale] = ()
    negatives: Sequence[Rationale] = ()
    tasks: Sequence[SideTask] = ()

    @property
    def length(self) -> int:
        """The longest input and the longest target; decides the padding."""
        inputs = [self.explain_ids, *(task.input_ids for task in self.tasks)]
        targets = [rationale.ids for rationale in (*self.positives, *self.negatives)]
        targets += [task.target_ids for task in self.tasks]
        return max(map(len, inputs)) + max((len(ids) for ids in targets), default=0)


def packed(example: TrainingExample) -> Record:
    """An example for an `ExampleFile`."""
    rationales, tasks = [*example.positives, *example.negatives], example.tasks
    return Record(
        rows=[
            [example.answer_ids is not None, len(example.positives), len(example.negatives)],
            [one.own for one in rationales],
            [one.answer_tokens for one in rationales],
            example.predict_ids,
            example.explain_ids,
            example.answer_ids or [],
            *(one.ids for one in rationales),
            *(ids for task in tasks for ids in (task.input_ids, task.target_ids)),
        ],
        numbers=[*(one.score for one in rationales), *(task.weight for task in tasks)],
    )


def unpacked(record: Record) -> TrainingExample:
    """The example of a record that `packed` made."""
    (answered, positives, negatives), own, answer_tokens, predict, explain, answer, *rest = record.rows
    count = positives + negatives
    rationales = [
        Rationale(rest[place], record.numbers[place], bool(own[place]), answer_tokens[place]) for place in range(count)
    ]
    tasks = zip(rest[count::2], rest[count + 1 :: 2], record.numbers[count:], strict=True)
    return TrainingExample(
        predict,
        explain,
        answer if answered else None,
        rationales[:positives],
        rationales[positives:],
        [SideTask(*task) for task in tasks],
    )


@dataclass(frozen=True)
class StudentBatch:
    """B examples as tensors.

    Attributes:
        index: (B,) place of each example in the training set.
        inputs, mask: (R, S) token ids and their mask: the predict rows, the explain rows, then those of side tasks.
        answers: (A, L) answer targets, padded with IGNORED; row a belongs to input row a.
        answer_example: (A,) the example of each.
        explain_row: (B,) the input row that explains each example, -1 for none.
        rationales: (K, T) all rationales of all examples, padded with IGNORED.
        positive, negative: (B, P), (B, N) rows of `rationales`, -1 where there is none.
        positive_score, negative_score: of the same shapes, D's quality.
        negative_own: (B, N) bool, the student's own negatives.
        differs_at: (K,) place of a rationale's first token that no positive of its example shares; past its end
            where there is none.
        answer_tokens: (K,) of each rationale.
        task_row: (X,) the input row of each side task.
        tasks: (X, U) their targets, padded with IGNORED.
        task_weight: (X,) their weights.
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
    negative_own: Tensor
    differs_at: Tensor
    answer_tokens: Tensor
    task_row: Tensor
    tasks: Tensor
    task_weight: Tensor

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
    differs_at: list[int] = []
    answer_tokens: list[int] = []
    for example in chosen:
        explained = bool(example.positives or example.negatives)
        explain_row.append(len(inputs) if explained else -1)
        inputs += [example.explain_ids] * explained
        for kind, own in (("positive", example.positives), ("negative", example.negatives)):
            tables[kind].append(list(range(len(rationales), len(rationales) + len(own))))
            scores[kind].append([rationale.score for rationale in own])
            rationales += [rationale.ids for rationale in own]
            differs_at += [first_difference(rationale.ids, example.positives) for rationale in own]
            answer_tokens += [rationale.answer_tokens for rationale in own]
    tasks = [task for example in chosen for task in example.tasks]
    task_row = range(len(inputs), len(inputs) + len(tasks))
    inputs += [task.input_ids for task in tasks]
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
        negative_own=_padded([[int(one.own) for one in example.negatives] for example in chosen], 0).bool(),
        differs_at=torch.tensor(differs_at, dtype=torch.long),
        answer_tokens=torch.tensor(answer_tokens, dtype=torch.long),
        task_row=torch.tensor(list(task_row), dtype=torch.long),
        tasks=_padded([task.target_ids for task in tasks], IGNORED),
        task_weight=torch.tensor([task.weight for task in tasks]),
    )


def first_difference(ids: Sequence[int], positives: Sequence[Rationale]) -> int:
    """Place of the first token after which no positive goes on like these ids; their length where one begins so."""
    return max((common_start(ids, positive.ids) for positive in positives), default=0)


def common_start(ids: Sequence[int], others: Sequence[int]) -> int:
    """How many tokens two texts have in common at their beginning."""
    differs = (place for place, (one, other) in enumerate(zip(ids, others, strict=False)) if one != other)
    return next(differs, min(len(ids), len(others)))


def _padded(rows: Sequence[Sequence[int] | None], filling: int) -> Tensor:
    """(len(rows), longest) integers padded on the right; (0, 0) for no rows."""
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


class StudentTraining(torch.nn.Module):
    """A student with a method's objective; a `models.trainer.Trainable`. It knows roles and weights, and no method.

    Args:
        student: what is trained.
        method: whose objective.
        examples: how many examples there are, for what is remembered of each.
    """

    def __init__(self, student: Student, method: MethodConfig, examples: int) -> None:
        super().__init__()
        self.student = student
        self.objective = objective_of(method)
        self._answer_share = method.answer_share
        self._has_side_tasks = bool(method.wrong_weight or method.judge_weight)
        self._choices = KeptChoices(examples, method.refresh_every)

    def forward(self, batch: StudentBatch) -> dict[str, Tensor]:
        """The sums over the batch's examples of the objective's loss and of its terms (`Objective.loss`)."""
        batch = batch.to(self.student.device)
        encoded = self.student.encode(batch.inputs, batch.mask)
        rows = torch.arange(len(batch.answers), device=batch.answers.device)
        nothing = torch.zeros_like(rows)
        answers = self._passed(encoded, rows, batch.answers, batch.answer_example, nothing, nothing)
        weights = self._weights(batch, encoded)
        positives, negatives = self._rationales(batch, encoded, weights)
        sums = self.objective.loss(answers, positives, negatives, weights)
        if self._has_side_tasks:
            none = torch.zeros_like(batch.task_row)
            passed = self._passed(encoded, batch.task_row, batch.tasks, none, none, none)
            term = (batch.task_weight * passed.ce).sum()
            sums = {**sums, "loss": sums["loss"] + term, "side_tasks": term}
        if torch.is_grad_enabled() and not sums["loss"].requires_grad:
            # No answer, and no rationale of any quality: the gradients are 0, but there must be some.
            sums["loss"] = sums["loss"] + 0.0 * sum(weight.sum() for weight in self.parameters())
        return sums

    # ---- without gradients: the weights ----

    def _weights(self, batch: StudentBatch, encoded: Encoded) -> Weights:
        """The objective's weights, after a pass without gradients over the candidates that it compares."""
        positive, negative = batch.positive >= 0, batch.negative >= 0
        held = None
        if self._choices.every > 1 and self.training:
            held = self._choices.hold(batch.index)
            positive, negative = self._choices.narrow(batch.index, held, positive, negative)
        compared = self.objective.compared(positive, negative)
        if held is not None:  # a choice that is held needs no comparison
            compared = (compared[0] & ~held[:, None], compared[1] & ~held[:, None])
        ce_p, ce_n = torch.zeros_like(batch.positive_score), torch.zeros_like(batch.negative_score)
        self._score(batch, encoded, ((batch.positive, compared[0], ce_p), (batch.negative, compared[1], ce_n)))
        weights = self.objective.weigh(
            Candidates(ce_p, batch.positive_score, positive),
            Candidates(ce_n, batch.negative_score, negative, batch.negative_own),
        )
        if held is not None:
            self._choices.note(batch.index, held, weights)
        return weights

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
        read = encoded.detach()
        for part in _by_length((targets != IGNORED).sum(dim=1)):
            short = _cut(targets[part])
            of_a_row = self.student.writer.reading_bytes(1, short.shape[1], batch.inputs.shape[1])
            at_once = max(1, room(self.student.device) // (SCORING_SHARE * of_a_row))
            for some, texts in zip(torch.split(part, at_once), torch.split(short, at_once), strict=True):
                ce[some] = self.student.cross_entropy(read.rows(owners[some]), texts).to(ce.dtype)
        self.student.train(training)
        for (_, _, filled), place in zip(tables, places, strict=True):
            filled[place[:, 0], place[:, 1]] = ce[: len(place)]
            ce = ce[len(place) :]

    # ---- with gradients ----

    def _rationales(self, batch: StudentBatch, encoded: Encoded, weights: Weights) -> tuple[Passed, Passed]:
        """The positives and the negatives that weigh something, in one pass."""
        place_p, place_n = (weights.positive > 0).nonzero(), (weights.negative > 0).nonzero()
        places = torch.cat([place_p, place_n])
        rows = torch.cat([batch.positive[place_p[:, 0], place_p[:, 1]], batch.negative[place_n[:, 0], place_n[:, 1]]])
        targets = _cut(batch.rationales[rows])
        passed = self._passed(
            encoded, batch.explain_row[places[:, 0]], targets, places[:, 0], places[:, 1], batch.differs_at[rows]
        )
        # In the loss alone: schemes that compare candidates go by the plain mean.
        if self._answer_share is not None and len(rows):
            ce = mean_over_parts(passed.nats, targets, batch.answer_tokens[rows], self._answer_share)
            passed = replace(passed, ce=ce)
        return passed.part(slice(len(place_p))), passed.part(slice(len(place_p), None))

    def _passed(
        self, encoded: Encoded, owners: Tensor, targets: Tensor, example: Tensor, column: Tensor, differs_at: Tensor
    ) -> Passed:
        """A pass over targets, (N, T); none where N is 0.

        Args:
            owners: (N,) the input row of each.
            example, column, differs_at: of `Passed`.
        """
        if not len(targets):
            nothing = encoded.states[0].new_zeros(0)
            return Passed(example, column, targets, nothing.view(0, 0), nothing, differs_at)
        logits = self.student.token_logits(encoded.rows(owners), targets)
        nats = token_nats(logits, targets)
        kept = logits if self.objective.reads_logits else None
        return Passed(example, column, targets, nats, mean_over_tokens(nats, targets), differs_at, kept)

    # ---- see models.trainer.Trainable ----

    def step_bytes(self, batch: StudentBatch) -> int:
        sides = (batch.positive >= 0, batch.negative >= 0)
        most = sum(int((side.any(dim=1) if self.objective.one_of_each else side).sum()) for side in sides)
        inputs, width = batch.inputs.shape
        read = self.student.reader.training_bytes(inputs, width)
        written = (
            self.student.writer.training_bytes(rows, targets.shape[1], width)
            for rows, targets in (
                (len(batch.answers), batch.answers),
                (most, batch.rationales),
                (len(batch.tasks), batch.tasks),
            )
        )
        return read + sum(written)

    def memory(self) -> dict[str, Tensor]:
        return {"choices": self._choices.table}

    def remember(self, memory: Mapping[str, Tensor]) -> None:
        if memory["choices"].shape == self._choices.table.shape:
            self._choices.table = memory["choices"].clone()

    def synchronise(self) -> None:
        if self._choices.every > 1:
            self._choices.synchronise(self.student.device)

    def save(self, folder: Path) -> None:
        """Writes the student."""
        self.student.save(folder)


def _cut(targets: Tensor) -> Tensor:
    """(N, T) targets as wide as the longest of them: some of a batch need not be as wide as the longest of all."""
    return targets[:, : int((targets != IGNORED).sum(dim=1).max())] if len(targets) else targets
