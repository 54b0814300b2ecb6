"""Drawn tokens against exact probabilities, and the random numbers they are drawn with."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare  # type: ignore[import-untyped,unused-ignore]
from torch import Tensor

from models.sampling import LARGEST_DRAW, choose, uniforms

DRAWS = 50_000


def frequencies(logits: list[float], temperature: float, top_p: float) -> np.ndarray:
    """How often each token is drawn; every draw is a row with a seed of its own."""
    draws = uniforms(range(DRAWS), 1)[:, 0]
    rows = torch.tensor([logits]).repeat(DRAWS, 1)
    tokens = choose(rows, draws, temperature, top_p)
    return np.bincount(tokens.numpy(), minlength=len(logits))


def probabilities(logits: list[float], temperature: float, top_p: float) -> np.ndarray:
    """By the definition, token by token, in float64."""
    weights = [math.exp(logit / temperature) for logit in logits]
    total = sum(weights)
    shares = [weight / total for weight in weights]
    kept, before = set(), 0.0
    for token in sorted(range(len(shares)), key=lambda token: -shares[token]):
        if before < top_p:
            kept.add(token)
        before += shares[token]
    mass = sum(shares[token] for token in kept)
    return np.array([share / mass if token in kept else 0.0 for token, share in enumerate(shares)])


@pytest.mark.parametrize("size", [5, 128, 300])
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (1.5, 1.0), (0.7, 1.0), (1.0, 0.8), (1.5, 0.5)])
def test_tokens_are_as_frequent_as_they_are_likely(size: int, temperature: float, top_p: float) -> None:
    logits = torch.randn(size, generator=torch.Generator().manual_seed(size)).mul(2).tolist()
    found, expected = frequencies(logits, temperature, top_p), probabilities(logits, temperature, top_p)
    assert not found[expected == 0].any()
    likely = expected * DRAWS > 5  # chi-square needs a few of each; the rest is one class
    counts = np.array([*found[likely], found[~likely].sum()])
    wanted = np.array([*expected[likely], expected[~likely].sum()]) * DRAWS
    there = wanted > 1e-6
    assert there.sum() == 1 or chisquare(counts[there], wanted[there]).pvalue > 1e-3


def test_temperature_0_takes_the_most_likely_token() -> None:
    assert choose(torch.tensor([[0.1, 3.0, 2.9], [5.0, 0.0, 0.0]]), None, 0.0, 1.0).tolist() == [1, 0]


def test_a_tiny_top_p_keeps_the_most_likely_token_only() -> None:
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    draws = uniforms(range(50), 1)[:, 0]
    assert choose(logits.clone(), draws, 1.5, 1e-9).tolist() == logits.argmax(1).tolist()


def test_top_p_1_keeps_all() -> None:
    logits = torch.randn(500, 40, generator=torch.Generator().manual_seed(0))
    draws = uniforms(range(500), 1)[:, 0]
    assert len(set(choose(logits.clone(), draws, 5.0, 1.0).tolist())) > 35
    almost = choose(logits.clone(), draws, 5.0, 1 - 1e-7)
    assert len(set(almost.tolist())) > 35


@settings(max_examples=200)
@given(
    size=st.integers(1, 400),
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([0.0, 1.0, 30.0, 1000.0]),
    draw=st.sampled_from([0.0, 2.0**-24, 0.5, LARGEST_DRAW]),
    top_p=st.sampled_from([1.0, 0.9, 1e-6]),
)
def test_no_impossible_token_is_ever_drawn(size: int, seed: int, spread: float, draw: float, top_p: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, size, generator=generator) * spread
    logits[:, 1:][torch.rand(4, size - 1, generator=generator) < 0.5] = -math.inf
    tokens = choose(logits.clone(), torch.full((4,), draw), 1.0, top_p)
    chosen = logits.softmax(1).gather(1, tokens[:, None])
    assert (chosen > 0).all()


def test_logits_that_are_no_numbers_do_not_crash() -> None:
    tokens = choose(torch.full((2, 300), math.nan), torch.tensor([0.0, 0.9]), 1.0, 1.0)
    assert ((tokens >= 0) & (tokens < 300)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_are_drawn_from_too(dtype: torch.dtype) -> None:
    logits = torch.randn(2000, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    draws = uniforms(range(2000), 1)[:, 0]
    assert torch.equal(choose(logits.clone(), draws, 1.0, 1.0), choose(logits.float(), draws, 1.0, 1.0))


# --- random numbers ---------------------------------------------------------------------------------------------------


def correlation(first: Tensor, second: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first.double(), second.double()]))[0, 1])


def test_uniforms_depend_on_their_own_seed_alone() -> None:
    together = uniforms([5, 2**63 + 1, 7], 10)
    assert together.dtype == torch.float32
    assert torch.equal(together[1:2], uniforms([2**63 + 1], 10))
    assert torch.equal(together[:, :4], uniforms([5, 2**63 + 1, 7], 4))  # a longer stream begins with the shorter one
    assert uniforms([], 3).shape == (0, 3)


def test_uniforms_are_uniform_and_independent() -> None:
    draws = uniforms(range(1000), 200)
    assert (draws >= 0).all()
    assert (draws <= LARGEST_DRAW).all()
    counts = torch.histc(draws, bins=100, min=0, max=1).numpy()
    assert chisquare(counts).pvalue > 1e-3
    assert abs(correlation(draws[:, :-1].flatten(), draws[:, 1:].flatten())) < 0.01  # of neighbours in a text
    assert abs(correlation(draws[:-1].flatten(), draws[1:].flatten())) < 0.01  # of consecutive seeds
