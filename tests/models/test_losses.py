"""The student's losses against slow references: one example at a time, plain Python, float64, with gradients."""

import math
from dataclasses import dataclass
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.losses import (
    IGNORED,
    Candidates,
    Weights,
    choose,
    contrastive_loss,
    discriminator_weight,
    mutual_information_loss,
    negative_loss,
    positive_loss,
    token_cross_entropy,
    total_loss,
)
from models.methods import READS_CE, Scheme

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
DELTA = 3.0

# --- token cross-entropy ----------------------------------------------------------------------------------------------


def slow_token_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    rows = []
    for row_logits, row_targets in zip(logits, targets, strict=True):
        surprises = []
        for token_logits, token in zip(row_logits, row_targets.tolist(), strict=True):
            if token != IGNORED:
                surprises.append(-(token_logits[token].exp() / token_logits.exp().sum()).log())
        rows.append(sum(surprises) / len(surprises))
    return torch.stack(rows)


def targets_of(lengths: list[int], vocabulary: int, generator: torch.Generator) -> Tensor:
    targets = torch.randint(vocabulary, (len(lengths), max(lengths)), generator=generator)
    for row, length in enumerate(lengths):
        targets[row, length:] = IGNORED
    return targets


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(2, 9), st.integers(0, 2**32))
@settings(deadline=None)
def test_token_cross_entropy_is_the_mean_over_real_tokens(lengths: list[int], vocabulary: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    targets = targets_of(lengths, vocabulary, generator)
    logits = torch.randn(*targets.shape, vocabulary, generator=generator, dtype=torch.float64).requires_grad_()
    fast, slow = token_cross_entropy(logits, targets), slow_token_cross_entropy(logits, targets)
    torch.testing.assert_close(fast, slow)
    (fast_gradient,), (slow_gradient,) = (
        torch.autograd.grad(fast.sum(), logits),
        torch.autograd.grad(slow.sum(), logits),
    )
    torch.testing.assert_close(fast_gradient, slow_gradient)
    assert (fast_gradient[targets == IGNORED] == 0).all()


def test_token_cross_entropy_of_bfloat16_logits_is_taken_in_float32() -> None:
    logits = torch.randn(3, 7, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets = torch.randint(50, (3, 7), generator=torch.Generator().manual_seed(1))
    losses = token_cross_entropy(logits, targets)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, slow_token_cross_entropy(logits.double(), targets).float())


def test_a_target_without_tokens_is_refused() -> None:
    targets = torch.tensor([[1, IGNORED], [IGNORED, IGNORED]])
    with pytest.raises(ValueError, match="1 of 2 targets have no token, not even an end token"):
        token_cross_entropy(torch.zeros(2, 2, 4), targets)


# --- schemes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A random batch: tables of CE (with gradients) and scores (with gradients), masks, uniforms."""

    positives: Candidates
    negatives: Candidates
    uniforms: Tensor  # (B, 2)

    def terms(self, scheme: Scheme, weights: Weights | None = None) -> tuple[Tensor, Tensor]:
        weights = weights or choose(scheme, self.positives, self.negatives, DELTA, self.uniforms)
        l_pos = positive_loss(self.positives.ce, weights.positive)
        return l_pos, negative_loss(self.negatives.ce, weights.negative, DELTA)


def random_candidates(rows: int, columns: int, generator: torch.Generator) -> Candidates:
    ce = (
        torch.rand(rows, columns, generator=generator, dtype=torch.float64) * 2 * DELTA
    )  # half of them above the margin
    scores = torch.rand(rows, columns, generator=generator, dtype=torch.float64)
    mask = torch.rand(rows, columns, generator=generator) < 0.7
    ce = ce.masked_fill(~mask, torch.nan)  # what lies outside the mask must not be read
    return Candidates(ce.requires_grad_(), scores.requires_grad_(), mask)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    rows = draw(st.integers(1, 4))
    positives = random_candidates(rows, draw(st.integers(0, 5)), generator)
    negatives = random_candidates(rows, draw(st.integers(0, 5)), generator)
    return Case(positives, negatives, torch.rand(rows, 2, generator=generator))


def slow_term(
    scheme: Scheme, values: list[Tensor], qualities: list[float], ranks: list[float], uniform: float
) -> Tensor:
    """l_pos or l_neg of one example: `values` are its CE terms, `ranks` what min-max minimises."""
    if not values:
        return torch.zeros((), dtype=torch.float64)
    if scheme == "mean":
        return sum((q * v for q, v in zip(qualities, values, strict=True)), torch.tensor(0.0)) / len(values)
    if scheme == "weighted-mean":
        return sum((q / sum(qualities) * v for q, v in zip(qualities, values, strict=True)), torch.tensor(0.0))
    chosen = {
        "min-max": ranks.index(min(ranks)),
        "max-min": ranks.index(max(ranks)),
        "sample": math.floor(uniform * len(values)),
    }[scheme]
    return qualities[chosen] * values[chosen]


def slow_terms(scheme: Scheme, case: Case) -> tuple[Tensor, Tensor]:
    l_pos, l_neg = [], []
    for row, (u_pos, u_neg) in enumerate(case.uniforms.tolist()):
        there = [j for j, real in enumerate(case.positives.mask[row].tolist()) if real]
        values = [case.positives.ce[row, j] for j in there]
        qualities = [case.positives.scores[row, j].item() for j in there]
        l_pos.append(slow_term(scheme, values, qualities, [value.item() for value in values], u_pos))

        there = [j for j, real in enumerate(case.negatives.mask[row].tolist()) if real]
        values = [torch.clamp(case.negatives.ce[row, j] - DELTA, max=0) for j in there]
        qualities = [1 - case.negatives.scores[row, j].item() for j in there]
        l_neg.append(slow_term(scheme, values, qualities, [-value.item() for value in values], u_neg))
    return torch.stack(l_pos), torch.stack(l_neg)


def gradient(value: Tensor, leaf: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(value.sum(), leaf, retain_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found


@pytest.mark.parametrize("scheme", SCHEMES)
@given(case=cases())
@settings(deadline=None)
def test_every_scheme_and_its_gradients_agree_with_the_reference(scheme: Scheme, case: Case) -> None:
    fast, slow = case.terms(scheme), slow_terms(scheme, case)
    for fast_term, slow_value, candidates in zip(fast, slow, (case.positives, case.negatives), strict=True):
        torch.testing.assert_close(fast_term, slow_value)
        torch.testing.assert_close(gradient(fast_term, candidates.ce), gradient(slow_value, candidates.ce))
    assert (fast[0] >= 0).all()
    assert (fast[1] <= 0).all()


@pytest.mark.parametrize("scheme", SCHEMES)
@given(case=cases())
@settings(deadline=None)
def test_weights_say_who_needs_gradients(scheme: Scheme, case: Case) -> None:
    weights = choose(scheme, case.positives, case.negatives, DELTA, case.uniforms)
    terms = case.terms(scheme, weights)
    for table, term, candidates in zip(
        (weights.positive, weights.negative), terms, (case.positives, case.negatives), strict=True
    ):
        torch.testing.assert_close(gradient(term, candidates.ce) != 0, table > 0)
        assert not (table[~candidates.mask] != 0).any()
        if scheme not in ("mean", "weighted-mean"):
            assert ((table > 0).sum(dim=1) <= 1).all()
    assert not (weights.negative[(case.negatives.ce >= DELTA)] != 0).any()


@pytest.mark.parametrize("scheme", SCHEMES)
@given(case=cases())
@settings(deadline=None)
def test_scores_get_no_gradient(scheme: Scheme, case: Case) -> None:
    l_pos, l_neg = case.terms(scheme)
    for scores in (case.positives.scores, case.negatives.scores):
        assert not gradient(contrastive_loss(l_pos, l_neg, beta=0.2), scores).any()


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme != "sample"])
@given(case=cases(), data=st.data())
@settings(deadline=None)
def test_the_order_of_candidates_does_not_matter(scheme: Scheme, case: Case, data: st.DataObject) -> None:
    def shuffled(table: Candidates) -> Candidates:
        order = data.draw(st.permutations(range(table.mask.shape[1])))
        return Candidates(table.ce[:, order], table.scores[:, order], table.mask[:, order])

    other = Case(shuffled(case.positives), shuffled(case.negatives), case.uniforms)
    torch.testing.assert_close(other.terms(scheme), case.terms(scheme))


@given(case=cases())
@settings(deadline=None)
def test_a_worse_candidate_changes_nothing_under_min_max(case: Case) -> None:
    def with_worse(table: Candidates, ce: float) -> Candidates:
        has_any = table.mask.any(dim=1, keepdim=True)
        column = torch.full_like(has_any, ce, dtype=torch.float64)
        return Candidates(
            torch.cat([table.ce, column], dim=1),
            torch.cat([table.scores, torch.full_like(column, 0.5)], dim=1),
            torch.cat([table.mask, has_any], dim=1),
        )

    # A positive harder than all others; a negative less likely to be far enough away than all others.
    other = Case(with_worse(case.positives, 2 * DELTA + 1), with_worse(case.negatives, -1.0), case.uniforms)
    torch.testing.assert_close(other.terms("min-max"), case.terms("min-max"))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_negative_at_or_above_the_margin_has_no_weight_and_no_gradient(scheme: Scheme) -> None:
    ce = torch.tensor([[DELTA], [DELTA + 1]], requires_grad=True)
    negatives = Candidates(ce, torch.zeros(2, 1), torch.ones(2, 1, dtype=torch.bool))
    weights = choose(scheme, negatives, negatives, DELTA, torch.zeros(2, 2))
    assert not weights.negative.any()
    l_neg = negative_loss(ce, weights.negative, DELTA)
    assert l_neg.tolist() == [0, 0]
    assert not gradient(l_neg, ce).any()


def test_dropout_may_lift_a_chosen_negative_above_the_margin() -> None:
    weights = torch.ones(1, 1)
    ce = torch.tensor([[DELTA + 0.5]], requires_grad=True)
    l_neg = negative_loss(ce, weights, DELTA)
    assert l_neg.item() == 0
    assert not gradient(l_neg, ce).any()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scores_of_exactly_0_and_1_do_not_divide_by_zero(scheme: Scheme) -> None:
    ones = torch.ones(1, 3, dtype=torch.bool)
    positives = Candidates(torch.tensor([[1.0, 2.0, 3.0]]), torch.zeros(1, 3), ones)
    negatives = Candidates(torch.tensor([[1.0, 2.0, 2.5]]), torch.ones(1, 3), ones)
    weights = choose(scheme, positives, negatives, DELTA, torch.full((1, 2), 0.999))
    assert not weights.positive.any()
    assert not weights.negative.any()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_cross_entropy_that_is_no_number_shows_up_in_the_loss(scheme: Scheme) -> None:
    bad = Candidates(torch.tensor([[torch.nan]]), torch.full((1, 1), 0.5), torch.ones(1, 1, dtype=torch.bool))
    weights = choose(scheme, bad, bad, DELTA, torch.zeros(1, 2))
    assert positive_loss(bad.ce, weights.positive).isnan().all()
    assert negative_loss(bad.ce, weights.negative, DELTA).isnan().all()


@given(count=st.integers(1, 7), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_sample_draws_every_candidate_equally_often(count: int, seed: int) -> None:
    rows = 4000
    mask = torch.zeros(rows, count + 2, dtype=torch.bool)
    mask[:, 1 : count + 1] = True
    candidates = Candidates(torch.ones(rows, count + 2), torch.ones(rows, count + 2), mask)
    uniforms = torch.rand(rows, 2, generator=torch.Generator().manual_seed(seed))
    drawn = choose("sample", candidates, candidates, DELTA, uniforms).positive.mean(dim=0)
    assert drawn.sum().item() == pytest.approx(1)
    assert (drawn[1 : count + 1] - 1 / count).abs().max() < 6 * 0.5 / math.sqrt(rows)


def test_sample_takes_the_last_candidate_for_the_largest_uniform() -> None:
    candidates = Candidates(torch.ones(1, 3), torch.ones(1, 3), torch.ones(1, 3, dtype=torch.bool))
    largest = torch.full((1, 2), 1 - 2**-24)  # times 3 rounds to 3 in float32
    assert choose("sample", candidates, candidates, DELTA, largest).positive.tolist() == [[0, 0, 1]]


def test_sample_without_uniforms_is_refused() -> None:
    candidates = Candidates(torch.ones(1, 1), torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="needs uniforms: two numbers"):
        choose("sample", candidates, candidates, DELTA)


@pytest.mark.parametrize("scheme", sorted(set(SCHEMES) - READS_CE))
@given(case=cases())
@settings(deadline=None)
def test_schemes_that_compare_no_cross_entropies_need_none(scheme: Scheme, case: Case) -> None:
    def without_ce(table: Candidates) -> Candidates:
        return Candidates(torch.zeros_like(table.ce), table.scores, table.mask)

    blind = choose(scheme, without_ce(case.positives), without_ce(case.negatives), DELTA, case.uniforms)
    torch.testing.assert_close(case.terms(scheme, blind), case.terms(scheme))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradcheck(scheme: Scheme) -> None:
    generator = torch.Generator().manual_seed(1)
    full = torch.ones(3, 4, dtype=torch.bool)
    tables = [torch.rand(3, 4, generator=generator, dtype=torch.float64) for _ in range(4)]
    uniforms = torch.rand(3, 2, generator=generator)

    def l_cl(positive_ce: Tensor, negative_ce: Tensor) -> Tensor:
        positives, negatives = Candidates(positive_ce, tables[2], full), Candidates(negative_ce, tables[3], full)
        weights = choose(scheme, positives, negatives, DELTA, uniforms)
        l_neg = negative_loss(negative_ce, weights.negative, DELTA)
        return contrastive_loss(positive_loss(positive_ce, weights.positive), l_neg, beta=0.2)

    assert torch.autograd.gradcheck(l_cl, (tables[0].requires_grad_(), (2.2 + tables[1]).requires_grad_()))


# --- the sums ---------------------------------------------------------------------------------------------------------


def test_the_equations_by_hand() -> None:
    yes = torch.ones(1, 2, dtype=torch.bool)
    positives = Candidates(torch.tensor([[1.0, 0.5]]), torch.tensor([[0.9, 0.8]]), yes)
    negatives = Candidates(torch.tensor([[2.0, 1.0]]), torch.tensor([[0.3, 0.1]]), yes)
    weights = choose("min-max", positives, negatives, DELTA)
    l_pos, l_neg = positive_loss(positives.ce, weights.positive), negative_loss(negatives.ce, weights.negative, DELTA)
    assert l_pos.item() == pytest.approx(0.8 * 0.5)  # eq. 6
    assert l_neg.item() == pytest.approx(0.7 * (2.0 - 3.0))  # eq. 7
    l_cl = contrastive_loss(l_pos, l_neg, beta=0.2)
    assert l_cl.item() == pytest.approx(0.4 + 0.2 * 0.7)  # eq. 3
    total = total_loss(torch.tensor([2.0]), l_cl, a1=0.3, a2=0.7)
    assert total.item() == pytest.approx(0.3 * 2.0 + 0.7 * 0.54)  # eq. 8, but for the discriminator's own loss


def test_the_discriminator_weight_starts_at_a_half_and_decays_by_a_tenth_each_round() -> None:
    assert [discriminator_weight(t) for t in range(3)] == pytest.approx([0.5, 0.45, 0.405])


# --- mi ---------------------------------------------------------------------------------------------------------------


def slow_mutual_information_loss(
    label_logits: Tensor, label_targets: Tensor, rationale_logits: Tensor, rationale_targets: Tensor
) -> Tensor:
    losses = []
    for row in range(len(label_targets)):
        likeliest = []
        for logits, targets in ((label_logits, label_targets), (rationale_logits, rationale_targets)):
            real = [t for t in range(targets.shape[1]) if targets[row, t] != IGNORED]
            rows = [logits[row, t].exp() / logits[row, t].exp().sum() for t in real]
            likeliest.append(torch.stack([torch.stack([p[v] for p in rows]).max() for v in range(logits.shape[2])]))
        q, p = likeliest[0].detach(), likeliest[1]
        log_softmax = (p.exp() / p.exp().sum()).log()
        losses.append(-sum((q[v] * log_softmax[v] for v in range(len(q))), torch.tensor(0.0)))
    return torch.stack(losses)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 6)), min_size=1, max_size=4),
    st.integers(2, 8),
    st.integers(0, 2**32),
)
@settings(deadline=None)
def test_the_mutual_information_loss_agrees_with_the_reference(
    lengths: list[tuple[int, int]], vocabulary: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    targets = [targets_of([pair[side] for pair in lengths], vocabulary, generator) for side in (0, 1)]
    logits = [
        torch.randn(*target.shape, vocabulary, generator=generator, dtype=torch.float64).requires_grad_()
        for target in targets
    ]
    fast = mutual_information_loss(logits[0], targets[0], logits[1], targets[1])
    slow = slow_mutual_information_loss(logits[0], targets[0], logits[1], targets[1])
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(gradient(fast, logits[1]), gradient(slow, logits[1]))
    assert not gradient(fast, logits[0]).any()


def test_the_mutual_information_loss_falls_when_the_rationale_names_the_label() -> None:
    label_logits = torch.zeros(2, 1, 5)
    label_logits[:, 0, 3] = 9.0  # the label is token 3
    rationale_logits = torch.zeros(2, 4, 5)
    rationale_logits[0, 2, 3] = 9.0  # only the first example's rationale names it
    rationale_logits[1, 2, 1] = 9.0
    label, rationale = torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, 4, dtype=torch.long)
    named, other = mutual_information_loss(label_logits, label, rationale_logits, rationale).tolist()
    assert named < other


def test_the_mutual_information_loss_of_an_example_without_a_rationale_is_0() -> None:
    logits = torch.randn(1, 2, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = mutual_information_loss(
        logits.detach(), torch.zeros(1, 2, dtype=torch.long), logits, torch.full((1, 2), IGNORED)
    )
    assert loss.tolist() == [0]
    assert not gradient(loss, logits).any()
