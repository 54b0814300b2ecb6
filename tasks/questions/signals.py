"""What a student makes of questions that nobody has answered yet: how sure it is, whether it agrees with itself, and
which questions look alike to it.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from models.cpu_linear import faster_linears
from models.prefixes import EXPLAIN, PREDICT
from models.student import Encoded, Student, pad
from storage.datasets.definition import Dataset
from tasks.questions.choosing import Choose, Signals
from tasks.serving.answering import Answered, ask
from tasks.serving.settings import AskingConfig, Question

if TYPE_CHECKING:
    from models.discriminator import Discriminator
    from models.judge import Judge

TOKENS_AT_ONCE = 16_384


def signals_of(
    choose: Choose,
    dataset: Dataset,
    student: Student,
    questions: Sequence[Question],
    asking: AskingConfig,
    judge: "Discriminator | Judge | None" = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Signals:
    """Lets a student answer and explain questions, as far as a choice needs it.

    Args:
        choose: what they are for.
        dataset: how a question is put.
        student: whom.
        questions: N of them.
        asking: how it is asked when it is served; no further rationales are sampled.
        judge: scores its rationales where it is served.
        on_progress: called with (texts written, texts in all).
    """
    alone = asking.model_copy(update={"samples": 0})
    confidence, disagrees = np.zeros(len(questions)), None
    if choose != "diverse":
        said = ask(dataset, student, questions, alone, on_progress, judge, weigh=True)
        confidence = np.array([_confidence(one, alone) for one in said])
        if asking.writes != "answer":
            disagrees = np.array([one.answer is None or one.answer != one.rationale_answer for one in said])
    states = states_of(dataset, student, questions) if choose in ("diverse", "mixed") else None
    texts = [EXPLAIN + dataset.student_input(one.question, one.choices) for one in questions]  # the longer prefix
    readable = np.array([len(ids) <= student.max_input_tokens for ids in student.input_ids(texts)], np.bool_)
    return Signals(confidence, disagrees, states, readable)


def states_of(dataset: Dataset, student: Student, questions: Sequence[Question]) -> NDArray[np.float32]:
    """(N, D) the mean over a question's tokens of what the student remembers of it, of length 1: its encoder's last
    states, or a decoder-only model's last values. A question that is longer than the student reads is a zero row."""
    texts = [PREDICT + dataset.student_input(one.question, one.choices) for one in questions]
    ids = student.input_ids(texts)
    order = [place for place in sorted(range(len(ids)), key=lambda place: len(ids[place]))
             if len(ids[place]) <= student.max_input_tokens]  # fmt: skip
    rows: dict[int, NDArray[np.float32]] = {}
    training = student.training
    student.eval()
    with torch.inference_mode(), faster_linears(student):
        while order:
            longest = len(ids[order[min(len(order), 256) - 1]])
            size = max(1, min(256, TOKENS_AT_ONCE // longest))
            batch, order = order[:size], order[size:]
            tokens, mask = pad([ids[place] for place in batch], student.pad_id)
            pooled = _pooled(student.encode(tokens.to(student.device), mask.to(student.device)))
            unit = torch.nn.functional.normalize(pooled.float(), dim=1)
            rows.update(zip(batch, unit.cpu().numpy(), strict=True))
    student.train(training)
    if not rows:
        return np.zeros((len(ids), 1), np.float32)
    blank = np.zeros_like(next(iter(rows.values())))
    return np.stack([rows.get(place, blank) for place in range(len(ids))])


def _pooled(encoded: Encoded) -> torch.Tensor:
    """(B, D) the mean over the real tokens of the last states; of a decoder-only model, of the last layer's values."""
    last = encoded.states[-1]
    if last.dim() == 4:  # (B, heads, S, head size)
        last = last.transpose(1, 2).flatten(2)
    weights = encoded.mask.to(last.dtype)[..., None]  # (B, S, 1)
    return (last * weights).sum(1) / weights.sum(1).clamp(min=1)


def _confidence(answered: Answered, asking: AskingConfig) -> float:
    """The calibrated probability that the answer is right, or the answer's own probability where none was fitted."""
    if asking.decision is not None:
        return answered.decided(asking.decision).confidence or 0.0
    if answered.answer is None:
        return 0.0
    return math.exp(answered.logs[answered.answer])
