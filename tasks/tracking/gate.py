"""Is the challenger better than the champion? Decided on the same test questions, by an exact test.

McNemar's test looks only at the questions that exactly one of the two answered right. If both were equally good, each
of these would go either way like a fair coin. The exact test is two-sided and takes from the binomial distribution how
likely chance splits them at least as unevenly (McNemar 1947; the exact form is the sign test on the discordant pairs).
The challenger becomes champion only if it wins more of them and this probability is at most `level`.

The difference of the two accuracies comes with Newcombe's interval for paired proportions, which combines Wilson's
score intervals of the two (Newcombe 1998, Statistics in Medicine 17:2635-2650, method 10). It stays within -1 to 1, and
is near its nominal coverage even with few questions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

DEFAULT_LEVEL = 0.05
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, and why.

    Attributes:
        promoted: whether the challenger is to be champion.
        reason: one line for people.
        questions: test questions that both answered; 0 if there was nothing to compare.
        both: questions that both answered right.
        only_challenger, only_champion: questions that only this one answered right.
        p_value: of the exact two-sided test; None if there was nothing to compare.
        difference: challenger's accuracy minus champion's, -1 to 1; None if there was nothing to compare.
        low, high: its 95% interval.
        level: the largest p-value at which the champion is replaced.
        against: version of the champion it was held against; None if there was none.
        moved: whether the champion changed.
    """

    promoted: bool
    reason: str
    questions: int = 0
    both: int = 0
    only_challenger: int = 0
    only_champion: int = 0
    p_value: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    level: float = DEFAULT_LEVEL
    against: str | None = None
    moved: bool = False

    @property
    def neither(self) -> int:
        """Questions that neither answered right."""
        return self.questions - self.both - self.only_challenger - self.only_champion

    @property
    def dropped(self) -> bool:
        """Whether the challenger is worse than the champion beyond doubt: its interval lies wholly below 0."""
        return self.high is not None and self.high < 0


def judge(challenger: Mapping[str, bool], champion: Mapping[str, bool] | None, level: float = DEFAULT_LEVEL) -> Verdict:
    """Decides between two models by their answers to the same test questions.

    Args:
        challenger: example id -> whether its answer was right.
        champion: the same for the champion; None if there is none.
        level: the largest p-value at which the champion is replaced, above 0 and below 1.

    Raises:
        ValueError: `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must lie between 0 and 1, such as {DEFAULT_LEVEL}")
    if champion is None:
        return Verdict(True, "promoted: there was no champion", level=level)
    common = challenger.keys() & champion.keys()
    if not common:
        return Verdict(False, "not promoted: champion and challenger have no test question in common", level=level)
    both = sum(challenger[key] and champion[key] for key in common)
    only_challenger = sum(challenger[key] and not champion[key] for key in common)
    only_champion = sum(champion[key] and not challenger[key] for key in common)
    neither = len(common) - both - only_challenger - only_champion
    p_value = exact_mcnemar(only_challenger, only_champion)
    low, high = paired_interval(both, only_challenger, only_champion, neither)
    difference = (only_challenger - only_champion) / len(common)
    promoted = only_challenger > only_champion and p_value <= level
    accuracies = [(both + alone) / len(common) for alone in (only_challenger, only_champion)]
    left_out = len(challenger.keys() | champion.keys()) - len(common)
    reason = (
        f"{'promoted' if promoted else 'not promoted'}: challenger {accuracies[0]:.1%}, champion {accuracies[1]:.1%} "
        f"on the same {len(common)} test questions"
        + (f" ({left_out} more were answered by only one of them)" if left_out else "")
        + f"; difference {100 * difference:+.1f} points, 95% interval {100 * low:+.1f} to {100 * high:+.1f}; "
        f"{only_challenger} right only by the challenger, {only_champion} only by the champion; exact McNemar "
        f"p = {p_value:.2g}, {'at most' if p_value <= level else 'above'} the level {level:g}"
    )
    return Verdict(
        promoted, reason, len(common), both, only_challenger, only_champion, p_value, difference, low, high, level
    )


def exact_mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided p-value of the exact McNemar test; 1 if the two never differ.

    Args:
        only_first, only_second: questions that only this one answered right.
    """
    from scipy.stats import binomtest  # here, because every run imports this file, and scipy takes a second

    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def paired_interval(
    both: int, only_first: int, only_second: int, neither: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Newcombe's interval (1998, method 10) for the difference of two paired proportions, first minus second.

    Args:
        both, only_first, only_second, neither: how many questions were answered right by whom; not all 0.
        confidence: nominal coverage, 0 to 1.
    """
    n = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    (low_1, high_1), (low_2, high_2) = (wilson_interval(count, n, confidence) for count in (first, second))
    p_1, p_2 = first / n, second / n
    # phi: the correlation of the two, its numerator corrected for continuity if positive.
    spread = first * (n - first) * second * (n - second)
    numerator = both * neither - only_first * only_second
    corrected = max(numerator - n / 2, 0) if numerator > 0 else numerator
    phi = corrected / sqrt(spread) if spread else 0.0
    below = _combined(p_1 - low_1, high_2 - p_2, phi)
    above = _combined(high_1 - p_1, p_2 - low_2, phi)
    return p_1 - p_2 - below, p_1 - p_2 + above


def _combined(one: float, other: float, phi: float) -> float:
    return sqrt(max(one**2 - 2 * phi * one * other + other**2, 0.0))


def wilson_interval(count: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval (1927) of count / n."""
    from scipy.stats import norm  # see exact_mcnemar

    z = float(norm.ppf((1 + confidence) / 2))
    share = count / n
    centre = share + z**2 / (2 * n)
    spread = z * sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, (centre - spread) / (1 + z**2 / n)), min(1.0, (centre + spread) / (1 + z**2 / n))
