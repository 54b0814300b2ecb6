"""How likely a student finds given texts."""

from collections.abc import Sequence

import torch

from models.cpu_linear import faster_linears
from models.losses import IGNORED
from models.student import Student, pad

BATCH = 256
"""Inputs at once; the targets are short."""


@torch.no_grad()
def log_probabilities(
    student: Student, inputs: Sequence[str], targets: Sequence[Sequence[str]], *, end: bool = True
) -> list[list[float]]:
    """log p(target | input), the sum over its tokens.

    Args:
        student: left in the mode it is in.
        inputs: with their prefix; none longer than the student reads.
        targets: for each input any number of texts.
        end: whether the end token is one of a target's; without it, that of all texts that begin so.

    Returns:
        Nats, at most 0, shaped like `targets`.
    """
    training = student.training
    student.eval()
    found: list[list[float]] = []
    try:
        with faster_linears(student):
            for start in range(0, len(inputs), BATCH):
                found += _batch(student, inputs[start : start + BATCH], targets[start : start + BATCH], end)
    finally:
        student.train(training)
    return found


def _batch(student: Student, inputs: Sequence[str], targets: Sequence[Sequence[str]], end: bool) -> list[list[float]]:
    owners = [row for row, texts in enumerate(targets) for _ in texts]
    if not owners:
        return [[] for _ in targets]
    device = student.device
    ids, mask = pad(student.input_ids(inputs), student.pad_id)
    wanted = student.target_ids([text for texts in targets for text in texts])
    target_ids, real = pad(wanted if end else [ids[:-1] for ids in wanted], IGNORED)
    encoded = student.encode(ids.to(device), mask.to(device)).rows(torch.tensor(owners, device=device))
    means = student.cross_entropy(encoded, target_ids.to(device)).double().cpu()
    logs = iter((-means * real.sum(dim=1)).tolist())
    return [[next(logs) for _ in texts] for texts in targets]
