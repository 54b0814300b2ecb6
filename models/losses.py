"""Every loss of the method, as pure functions of tensors (docs/distillation.md; eq. n is the QCRD paper's).

All of them return one value per example, (B,), and no mean: the trainer adds the examples up and divides by those of
the whole batch, however it is spread over processes. An example that a term does not apply to has 0 there.

B examples of a batch · P, N columns of the widest example's positives, negatives (may be 0) · T tokens · V vocabulary.
A table (B, P) or (B, N) is padded; its mask is True where there is a candidate, and values elsewhere are never read.

    weights = choose("min-max", positives, negatives, delta)        # from values without gradients
    # gradients are needed only for candidates with weights.positive > 0 and weights.negative > 0
    l_pos = positive_loss(positive_ce, weights.positive)            # eq. 6
    l_neg = negative_loss(negative_ce, weights.negative, delta)     # eq. 7
    l_cl = contrastive_loss(l_pos, l_neg, beta)                     # eq. 3
    loss = total_loss(l_pred, l_cl, a1, a2)                         # eq. 8, the student's part
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - what everybody calls it

from models.configs import DiscriminatorLoss
from models.methods import Scheme

IGNORED = -100
"""The label of padding: left out of every loss."""
SUREST = 1e-4
"""Nats of a token from which on its unlikelihood grows no further: p = 0.9999 costs 9.2."""


def token_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """CE: how surprised the student is by each target, nats per token, in float32 at least.

    Rows do not depend on each other, so with a large vocabulary a caller may pass a few rows at a time.

    Args:
        logits: (N, T, V), any float type.
        targets: (N, T), padded with IGNORED.

    Returns:
        (N,): -mean_t log softmax(logits_t)[target_t] over the real tokens.

    Raises:
        ValueError: see `token_nats`.
    """
    return mean_over_tokens(token_nats(logits, targets), targets)


def token_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """(N, T): -log softmax(logits_t)[target_t], the surprise at each token, 0 at padding; arguments as above.

    Raises:
        ValueError: a target has no token. A CE of 0 would make it the best of all positives; an empty text still has
            its end token.
    """
    empty = (targets == IGNORED).all(dim=1)  # (N,)
    if bool(empty.any()):
        raise ValueError(f"{int(empty.sum())} of {len(empty)} targets have no token, not even an end token.")
    logits = _at_least_float32(logits)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return losses.view(targets.shape)


def mean_over_tokens(nats: Tensor, targets: Tensor) -> Tensor:
    """(N,): the mean of each target's (N, T) nats over its real tokens; targets as above."""
    return nats.sum(dim=1) / (targets != IGNORED).sum(dim=1)


def mean_over_parts(nats: Tensor, targets: Tensor, parted_at: Tensor, share: float) -> Tensor:
    """(N,): `share` of the mean over the tokens before a place, and 1 - share of the mean over those from it on.

    Args:
        nats, targets: as above.
        parted_at: (N,) the place; a target that has no tokens before it, or none behind it, has its plain mean.
        share: 0 to 1.
    """
    real = targets != IGNORED
    before = real & (torch.arange(targets.shape[1], device=targets.device) < parted_at[:, None])
    behind = real & ~before
    first, rest = before.sum(dim=1), behind.sum(dim=1)
    means = [(nats * part).sum(dim=1) / count.clamp(min=1) for part, count in ((before, first), (behind, rest))]
    parted = share * means[0] + (1 - share) * means[1]
    return torch.where((first > 0) & (rest > 0), parted, mean_over_tokens(nats, targets))


# --- which rationales count, and how much (eq. 6 and 7) ---------------------------------------------------------------


@dataclass(frozen=True)
class Candidates:
    """The positives, or the negatives, of B examples, as the student and the discriminator see them now.

    Attributes:
        ce: (B, K) CE of each, nats per token. The schemes in READS_CE compare them; the others only use them to spare
            negatives above the margin, so there a caller that has none may pass zeros.
        scores: (B, K) D's quality in (0, 1). Without a discriminator: ones for positives, zeros for negatives.
        mask: (B, K) bool, True where there is a candidate.
        own: (B, K) bool, True for the student's own; None where nobody asks.
    """

    ce: Tensor
    scores: Tensor
    mask: Tensor
    own: Tensor | None = None

    def only(self, some: Tensor) -> "Candidates":
        """Those of a (B, K) mask."""
        return replace(self, mask=self.mask & some)


@dataclass(frozen=True)
class Weights:
    """What each candidate's CE term is multiplied by; 0 for those that take no part and need no gradient.

    Attributes:
        positive: (B, P), of CE.
        negative: (B, N), of min(CE - delta, 0). Never above 0 where CE >= delta, since that term is 0 and flat.
    """

    positive: Tensor
    negative: Tensor


def relative_scores(
    kind: Literal["score", "relative", "rank"], scores: Sequence[float], *, negative: bool
) -> list[float]:
    """Scores whose quality, s of a positive and 1 - s of a negative, compares the rationales of one example and does
    not change how much the example counts.

    Args:
        kind: `score` returns them as they are; `relative` divides the qualities by their mean; `rank` takes
            their places in order instead, 1 to n, equal ones sharing theirs, and divides by the mean.
        scores: D's, in (0, 1), of the example's positives or of its negatives.
        negative: whether they are negatives'.

    Returns:
        As many; their qualities have a mean of 1, and so are not in (0, 1).
    """
    if kind == "score" or not scores:
        return list(scores)
    qualities = [1 - score if negative else score for score in scores]
    if kind == "rank":
        qualities = [sum((other < one) + 0.5 * (other == one) for other in qualities) + 0.5 for one in qualities]
    mean = max(sum(qualities) / len(qualities), sys.float_info.min)
    weights = [quality / mean for quality in qualities]
    return [1 - weight for weight in weights] if negative else weights


@torch.no_grad()
def choose(
    scheme: Scheme, positives: Candidates, negatives: Candidates, delta: float, uniforms: Tensor | None = None
) -> Weights:
    """Turns a scheme into weights, so that every scheme's l_pos and l_neg is the same weighted sum.

    With q the quality, s_j for a positive and 1 - s_j for a negative, an example's weights are
        min-max        q_j for the positive with the smallest CE, and for the negative with the largest
                       min(CE - delta, 0) (eq. 6 and 7); the paper's own
        max-min        q_j for the positive with the largest CE, and for the negative with the smallest of those
        mean           q_j / number of candidates, for all
        sample         q_j for one positive and one negative, each drawn uniformly from the distinct ones
        weighted-mean  q_j / sum_k q_k, for all: the quality says only how candidates compare, not how much they count
    The last three are this project's reading of the names in the paper's Table 5. Between equals the first is taken.
    An example without candidates has weights 0.

    Args:
        scheme: one of the above.
        positives, negatives: values without gradients are enough; none flows through the weights.
        delta: margin, nats per token; a negative at or above it is not repelled (weight 0).
        uniforms: (B, 2) in [0, 1), for "sample": one number for the positive, one for the negative.
    """
    draws = (None, None) if uniforms is None else (uniforms[:, 0], uniforms[:, 1])
    positive = _scheme_weights(scheme, positives.ce, positives.scores, positives.mask, draws[0])
    # The largest min(CE - delta, 0) is that of the largest CE, and the smallest that of the smallest.
    negative = _scheme_weights(scheme, -negatives.ce, 1 - negatives.scores, negatives.mask, draws[1])
    # Not `ce < delta`: a NaN CE must show up in the loss.
    return Weights(positive, negative.masked_fill(negatives.ce >= delta, 0.0))


def _scheme_weights(scheme: Scheme, cost: Tensor, quality: Tensor, mask: Tensor, draws: Tensor | None) -> Tensor:
    """(B, K) weights; "min-max" takes the smallest cost and "max-min" the largest."""
    quality = quality.masked_fill(~mask, 0.0)
    if scheme == "min-max":
        return quality * _first_smallest(cost, mask)
    if scheme == "max-min":
        return quality * _first_smallest(-cost, mask)
    if scheme == "mean":
        return quality / mask.sum(dim=1, keepdim=True).clamp(min=1)
    if scheme == "weighted-mean":
        # The smallest normal number: all weights are 0 where D finds no quality in any candidate.
        return quality / quality.sum(dim=1, keepdim=True).clamp(min=torch.finfo(quality.dtype).tiny)
    if draws is None:
        raise ValueError("The scheme 'sample' needs uniforms: two numbers in [0, 1) for each example.")
    count = mask.sum(dim=1)  # (B,)
    drawn = torch.minimum((draws * count).long(), count - 1)  # rounding may reach count
    rank = mask.cumsum(dim=1) - 1  # 0, 1, 2 ... over the candidates of an example
    return quality * (mask & (rank == drawn[:, None]))


def _first_smallest(values: Tensor, mask: Tensor) -> Tensor:
    """(B, K) bool: True at the first smallest value under the mask, nowhere in a row without any."""
    if values.shape[1] == 0:
        return mask
    best = values.masked_fill(~mask, torch.inf).argmin(dim=1, keepdim=True)  # the first, says torch's documentation
    return torch.zeros_like(mask).scatter(1, best, True) & mask


def positive_loss(ce: Tensor, weights: Tensor) -> Tensor:
    """l_pos (eq. 6): sum_j w_j CE_j, which under min-max is s_pos * min_j CE(f(x), r_pos_j).

    Args:
        ce: (B, P) nats per token, with gradients where weights > 0; elsewhere it is not read.
        weights: (B, P) from `choose`.

    Returns:
        (B,), at least 0; 0 for an example without positives.
    """
    return _weighted_sum(ce, weights)


def negative_loss(ce: Tensor, weights: Tensor, delta: float) -> Tensor:
    """l_neg (eq. 7 with the margin): sum_j w_j min(CE_j - delta, 0); min-max: (1 - s_neg) max_j min(CE_j - delta, 0).

    Args:
        ce: (B, N) nats per token, with gradients where weights > 0; elsewhere it is not read.
        weights: (B, N) from `choose`.
        delta: margin, nats per token. Applied again: dropout may lift a chosen negative above it.

    Returns:
        (B,), at most 0; 0 for an example without negatives below the margin.
    """
    return _weighted_sum((ce - delta).clamp(max=0), weights)


def preference_loss(positive: Tensor, negative: Tensor, gap: float, sharpness: float) -> Tensor:
    """softplus(-sharpness (log p(r+) - log p(r-) - gap)), elementwise: a positive should be likelier than a negative.

    DPO's loss (Rafailov et al. 2023, eq. 7) without a reference model, with SimPO's gap. The sums over tokens differ
    where the texts do: what both share cancels, but for what came before it.

    Args:
        positive, negative: nats of whole texts, -log p.
        gap: nats.
        sharpness: per nat.
    """
    return F.softplus(-sharpness * (negative - positive - gap))


def divergence_loss(nats: Tensor, ids: Tensor, differs_at: Tensor, fading: float) -> Tensor:
    """(N,): sum_t m_t (-log(1 - p_t)) / sum_t m_t, the unlikelihood (Welleck et al. 2020, eq. 4) of what follows the
    first token that no positive shares; m_t is 0 before it and fading^(t - differs_at) from there on.

    Args:
        nats: (N, T) -log p_t.
        ids: (N, T) targets, padded with IGNORED.
        differs_at: (N,) place of that token; T or more for a text without any, whose loss is 0.
        fading: in (0, 1].
    """
    after = torch.arange(nats.shape[1], device=nats.device) - differs_at[:, None]  # (N, T)
    weight = torch.where((after >= 0) & (ids != IGNORED), fading ** after.clamp(min=0).to(nats.dtype), 0.0)
    # -log(1 - e^-x); a token the student is sure of (x = 0) would cost without end.
    unlikelihood = -torch.log(-torch.expm1(-nats.clamp(min=SUREST)))
    return (weight * unlikelihood).sum(dim=1) / weight.sum(dim=1).clamp(min=torch.finfo(nats.dtype).tiny)


def _weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    return (weights * values.masked_fill(weights == 0, 0.0)).sum(dim=1)


# --- the sums (eq. 3 and 8) -------------------------------------------------------------------------------------------


def contrastive_loss(l_pos: Tensor, l_neg: Tensor, beta: float) -> Tensor:
    """The terms of L_cl (eq. 3), (B,): l_pos - beta * l_neg. l_neg is at most 0, so a likely negative costs."""
    return l_pos - beta * l_neg


def total_loss(l_pred: Tensor, l_cl: Tensor, a1: float, a2: float) -> Tensor:
    """What the student sees of L_total (eq. 8): a1 L_pred + a2 L_cl. The rest, a3 L_D, has no gradient in the student;
    it trains the discriminator, for which `discriminator_weight` is a3."""
    return a1 * l_pred + a2 * l_cl


def discriminator_weight(t: int, first: float = 0.5, decay: float = 0.9) -> float:
    """a3 in round t, counted from 0: first * decay^t; the paper's 0.5 * 0.9^t."""
    return first * decay**t


# --- the discriminator's own loss (eq. 2) -----------------------------------------------------------------------------


def discriminator_loss(
    kind: DiscriminatorLoss, positive: Tensor, positive_mask: Tensor, negative: Tensor, negative_mask: Tensor
) -> Tensor:
    """The terms of L_D (eq. 2). With s = sigmoid(logit), for one example:
        ratio    -log( sum_j exp s_pos_j / sum_k exp s_neg_k ), the paper's; s is in (0, 1), so it is bounded:
                 log(N / P) - 1 at best, and its gradient fades as scores near 0 and 1
        infonce  -log( sum_j exp s_pos_j / (sum_j exp s_pos_j + sum_k exp s_neg_k) )
        bce      mean_j -log s_pos_j + mean_k -log(1 - s_neg_k), halved

    Args:
        kind: one of the above.
        positive, negative: (B, P), (B, N) D's outputs before the sigmoid, so that bce stays exact near 0 and 1.
        positive_mask, negative_mask: of the same shapes, bool.

    Returns:
        (B,), 0 (with a gradient of 0) for an example without positives or without negatives. Who wants the mean
        over the others leaves such examples out of the batch.
    """
    positive = _at_least_float32(positive).masked_fill(~positive_mask, 0.0)
    negative = _at_least_float32(negative).masked_fill(~negative_mask, 0.0)
    if kind == "bce":
        of_positives = _masked_mean(F.softplus(-positive), positive_mask)  # softplus(-logit) = -log s
        of_negatives = _masked_mean(F.softplus(negative), negative_mask)  # softplus(logit) = -log(1 - s)
        losses = (of_positives + of_negatives) / 2
    else:
        attraction = _log_sum_exp_of_scores(positive, positive_mask)  # (B,)
        repulsion = _log_sum_exp_of_scores(negative, negative_mask)
        losses = (repulsion if kind == "ratio" else torch.logaddexp(attraction, repulsion)) - attraction
    return torch.where(positive_mask.any(dim=1) & negative_mask.any(dim=1), losses, 0.0)


def _log_sum_exp_of_scores(logits: Tensor, mask: Tensor) -> Tensor:
    """(B,): log sum_j exp sigmoid(logit_j); -inf for a row without any."""
    # What is filled in passes no gradient on, so a row without any gets 0 and not 0 * inf.
    return logits.sigmoid().masked_fill(~mask, -torch.inf).logsumexp(dim=1)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """(B,) means over the mask; 0 for a row without any."""
    return values.masked_fill(~mask, 0.0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


# --- the baseline `mi` ------------------------------------------------------------------------------------------------


def mutual_information_loss(
    label_logits: Tensor, label_targets: Tensor, rationale_logits: Tensor, rationale_targets: Tensor
) -> Tensor:
    """What `mi` adds to `dss` (Chen et al. 2024, arXiv 2403.03348): the rationale should hold the label's words.

    For one example, over the vocabulary v, with positions t of the label and u of the rationale:
        q(v) = max_t softmax(label_logits_t)[v]         taken as given: no gradient flows into the label's side
        p(v) = max_u softmax(rationale_logits_u)[v]
        loss = -sum_v q(v) log softmax_v(p)[v]

    Taken as it stands from the authors' code (github.com/xinchen9/cot_distillation_ACL2024, `TaskPrefixTrainer.
    compute_loss`), whose figures the paper reports, oddities included: q sums to more than 1, and p, already made of
    probabilities, goes through another softmax. Their total is 0.5 label + 0.5 rationale + 0.1 times the mean of this.
    One thing is ours: the maximum is over the target's real tokens, theirs is over padding too, so that there an
    example's loss depends on the others in its batch.

    Args:
        label_logits, label_targets: (B, T, V) and (B, T) of the target under `predict: `, padded with IGNORED.
        rationale_logits, rationale_targets: (B, U, V) and (B, U) of the target under `explain: `, likewise.

    Returns:
        (B,) nats; 0 for an example that lacks either target.
    """
    q = _likeliest(label_logits.detach(), label_targets)  # (B, V)
    p = _likeliest(rationale_logits, rationale_targets)  # (B, V)
    both = (label_targets != IGNORED).any(dim=1) & (rationale_targets != IGNORED).any(dim=1)
    return torch.where(both, -(q * p.log_softmax(dim=-1)).sum(dim=-1), 0.0)


def _likeliest(logits: Tensor, targets: Tensor) -> Tensor:
    """(B, V): each token's highest probability at any real position of a target."""
    probabilities = _at_least_float32(logits).softmax(dim=-1)  # (B, T, V)
    return probabilities.masked_fill((targets == IGNORED)[:, :, None], 0.0).amax(dim=1)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
