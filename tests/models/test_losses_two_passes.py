"""Scoring all candidates without gradients and training only the chosen ones is training on all of them."""

from typing import get_args

import pytest
import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from models.losses import (
    IGNORED,
    Candidates,
    choose,
    contrastive_loss,
    negative_loss,
    positive_loss,
    token_cross_entropy,
)
from models.methods import Scheme

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
VOCABULARY, EXAMPLES, COLUMNS, TOKENS = 40, 4, 3, 6
BETA = 0.2


@pytest.fixture(scope="module")
def student() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=VOCABULARY, dropout_rate=0.0, decoder_start_token_id=0, **sizes)
    )
    return model.double()


def cross_entropies(student: T5ForConditionalGeneration, inputs: Tensor, owner: Tensor, targets: Tensor) -> Tensor:
    """(N,) CE of targets (N, T), every target of an example sharing one pass of the encoder over its question."""
    hidden = student.encoder(input_ids=inputs).last_hidden_state[owner]  # (N, S, H)
    labels = student._shift_right(targets)
    logits = student.lm_head(student.decoder(input_ids=labels, encoder_hidden_states=hidden).last_hidden_state)
    return token_cross_entropy(logits, targets)


def table(values: Tensor, mask: Tensor) -> Tensor:
    """(B, K) with the values where the mask is True, row by row."""
    return torch.full(mask.shape, torch.nan, dtype=values.dtype).masked_scatter(mask, values)


def gradients(student: T5ForConditionalGeneration, loss: Tensor) -> dict[str, Tensor]:
    student.zero_grad()
    torch.autograd.backward(loss)
    return {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
        for name, weight in student.named_parameters()
    }


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("delta_from_median", [-1.0, 0.0, 1.0])  # nearly no, half, nearly all negatives are repelled
def test_gradients_for_the_chosen_only_are_gradients_for_everything(
    student: T5ForConditionalGeneration, scheme: Scheme, delta_from_median: float
) -> None:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randint(2, VOCABULARY, (EXAMPLES, 5), generator=generator)
    masks = torch.rand(2, EXAMPLES, COLUMNS, generator=generator) < 0.8
    masks[0, 1], masks[1, 2] = False, False  # an example without positives, one without negatives
    scores = torch.rand(2, EXAMPLES, COLUMNS, generator=generator, dtype=torch.float64)
    uniforms = torch.rand(EXAMPLES, 2, generator=generator)
    owners = [mask.nonzero()[:, 0] for mask in masks]
    targets = []
    for owner in owners:
        rows = torch.randint(2, VOCABULARY, (len(owner), TOKENS), generator=generator)
        lengths = torch.randint(1, TOKENS + 1, (len(owner), 1), generator=generator)
        targets.append(rows.masked_fill(torch.arange(TOKENS) >= lengths, IGNORED))

    with torch.no_grad():
        ces = [cross_entropies(student, inputs, o, t) for o, t in zip(owners, targets, strict=True)]
    delta = float(ces[1].median()) + delta_from_median
    positives, negatives = (
        Candidates(table(ce, mask), score, mask) for ce, score, mask in zip(ces, scores, masks, strict=True)
    )
    weights = choose(scheme, positives, negatives, delta, uniforms)

    def loss(only_chosen: bool) -> Tensor:
        tables = []
        for owner, target, mask, weight in zip(
            owners, targets, masks, (weights.positive, weights.negative), strict=True
        ):
            wanted = weight > 0 if only_chosen else mask
            rows = wanted[mask]
            ce = cross_entropies(student, inputs, owner[rows], target[rows]) if rows.any() else inputs.new_zeros(0)
            tables.append(table(ce.double(), wanted))
        l_neg = negative_loss(tables[1], weights.negative, delta)
        return contrastive_loss(positive_loss(tables[0], weights.positive), l_neg, BETA).sum()

    everything, chosen = loss(only_chosen=False), loss(only_chosen=True)
    torch.testing.assert_close(chosen, everything)
    expected = gradients(student, everything)
    assert any(gradient.any() for gradient in expected.values())
    for name, gradient in gradients(student, chosen).items():
        torch.testing.assert_close(gradient, expected[name])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_fewer_candidates_need_gradients_than_there_are(scheme: Scheme) -> None:
    generator = torch.Generator().manual_seed(0)
    full = torch.ones(8, 5, dtype=torch.bool)
    table = Candidates(6 * torch.rand(8, 5, generator=generator), torch.full((8, 5), 0.5), full)
    weights = choose(scheme, table, table, 3.0, torch.rand(8, 2, generator=generator))
    chosen = int((weights.positive > 0).sum())
    assert chosen == (8 * 5 if scheme in ("mean", "weighted-mean") else 8)
    assert int((weights.negative > 0).sum()) <= chosen
