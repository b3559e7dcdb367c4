"""Early stopping: when the questions asked so far decide how a pruned run compares with the dense one.

Every number of questions may be the last one: evidence is a bet on the mean (`eprocess`), so the probability that a
verdict is ever wrong does not grow with the number of looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, log
from typing import Literal, NamedTuple

import numpy as np

from lm_eval_pruned.results.statistics.eprocess import EVEN, SIZES, log_e_mean, mean_sequence
from lm_eval_pruned.results.statistics.paired import DECIMALS, Floats

# A comparison is made while questions are asked and, if it stays undecided, when all have been.
LOOKS = 2

# Bets of every test and interval of a difference, so that these agree: this share of the capital goes to bets that
# weigh as this power of their size, since large ones win most where nothing changes, and the rest to all sizes alike.
LEANING, LEAN = 0.75, 10
BET_WEIGHTS: Floats = LEANING * SIZES**LEAN / (SIZES**LEAN).sum() + (1 - LEANING) * EVEN
# The level of a test of equivalence is at most alpha / 2, that of either end of an interval.
ENDS = 2
# A round at most doubles the number of questions, however far away a verdict seems.
MOST = 2.0
# A round has at least so many.
LEAST = 4
_BISECTIONS = 12

Verdict = Literal["drop", "gain", "equivalent", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppingRule:
    """When a comparison is certain.

    Attributes:
        alpha: probability of any false drop or gain in the whole sweep, and that of any false equivalence.
        equivalence: a run is equivalent if its mean is less than this away from the dense one's, either way.
        lines: number of comparisons in the sweep's leaderboard, among which drops and gains are found.
        curves: number of verdicts in the sweep.
    """

    alpha: float = 0.05
    equivalence: float = 0.1
    lines: int
    curves: int


class Judgement(NamedTuple):
    """A verdict, and how many questions are worth asking, those that were asked included, before it is judged again."""

    verdict: Verdict
    ask: int


def anytime_p(gains: Floats, *, two_sided: bool, margin: float = 0.0) -> float:
    """Return a p-value of gains [questions], between -1 and 1, that holds whenever one stops asking.

    Two-sided: against a mean of 0, 1 / p is the mean of the e-values of a drop and of a gain. Otherwise the alternative
    is a mean below -margin.

    Example:
        >>> anytime_p(np.full(20, -1.0), two_sided=True) < 1e-3, anytime_p(np.zeros(20), two_sided=True)
        (True, 1.0)
    """
    values = gains.round(DECIMALS)
    log_e = log_e_changed(values) if two_sided else log_e_mean(-values - margin, least=-1 - margin, bets=BET_WEIGHTS)
    return min(1.0, exp(-log_e))


def judge(lines: Sequence[Floats], rule: StoppingRule) -> Judgement:
    """Return what the questions asked so far say of a curve.

    A drop or gain is certain when one of the lines has a p of alpha / lines / 2: half of alpha is left for the tests of
    the cells that go on to the end. The leaderboard, which corrects for its lines and for both looks, says so too.
    Equivalence is certain when a drop and a gain of the whole by the margin are both excluded at alpha / curves, and
    at alpha / 2 in a sweep with one curve. So `difference_sequence` at this alpha excludes 0 in a line that shows a
    drop or gain, and lies within the margin if the verdict is equivalence.

    `ask` is the number of questions at which a verdict would be certain if further ones were answered like those so
    far, and at most twice the number asked.

    Args:
        lines: gains [questions], between -1 and 1, under each budget, and last those of the curve as a whole.
        rule: the levels and the margin.
    """
    rounded = [values.round(DECIMALS) for values in lines]
    changed, same = log(LOOKS * rule.lines / rule.alpha), log(max(ENDS, rule.curves) / rule.alpha)

    def verdict(times: float) -> Verdict:
        signs = {values.mean() > 0 for values in rounded if log_e_changed(values, times) >= changed}
        if signs:
            return "drop" if False in signs else "gain"
        return "equivalent" if log_e_same(rounded[-1], rule.equivalence, times) >= same else "undecided"

    asked, low, high = len(rounded[-1]), 1.0, MOST
    if (now := verdict(1.0)) == "undecided" and verdict(high) != "undecided":
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if verdict(middle) == "undecided" else (low, middle)
    return Judgement(now, max(ceil(high * asked), asked + LEAST))


def share_sequence(values: Floats, *, alpha: float) -> tuple[float, float]:
    """Return the confidence sequence (low, high) of the mean of values [questions] between 0 and 1.

    Example:
        >>> low, high = share_sequence(np.array([0.0, 1.0] * 50), alpha=0.05)
        >>> 0.3 < low < 0.5 < high < 0.7
        True
    """
    low, high = mean_sequence(2 * values - 1, alpha=alpha)
    return (1 + low) / 2, (1 + high) / 2


def difference_sequence(differences: Floats, *, alpha: float) -> tuple[float, float]:
    """Return the confidence sequence (low, high) of the mean of differences [questions], which agrees with `judge`.

    Example:
        >>> low, high = difference_sequence(np.zeros(60), alpha=0.05)
        >>> -0.1 < low < 0 < high < 0.1
        True
    """
    return mean_sequence(differences.round(DECIMALS), alpha=alpha, bets=BET_WEIGHTS)


def log_e_changed(gains: Floats, times: float = 1) -> float:
    """Return log e against a mean gain of 0: the mean of e for a drop and of e for a gain."""
    worse, better = (log_e_mean(values, least=-1, bets=BET_WEIGHTS, times=times) for values in (-gains, gains))
    return float(np.logaddexp(worse, better)) - log(2)


def log_e_same(gains: Floats, margin: float, times: float = 1) -> float:
    """Return the smaller log e of those against a mean gain of -margin and of +margin, or beyond."""
    return min(
        log_e_mean(values + margin, least=margin - 1, bets=BET_WEIGHTS, times=times) for values in (gains, -gains)
    )
