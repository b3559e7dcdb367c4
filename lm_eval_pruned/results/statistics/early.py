"""Early stopping: when the questions asked so far decide how a pruned run compares with the dense one.

Every number of questions may be the last one: evidence is a bet on the mean (`eprocess`), so the probability that a
verdict is ever wrong does not grow with the number of looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from typing import Literal

import numpy as np

from lm_eval_pruned.results.statistics.eprocess import log_e_mean, mean_sequence
from lm_eval_pruned.results.statistics.paired import DECIMALS, Floats

# A comparison is made while questions are asked and, if it stays undecided, when all have been.
LOOKS = 2

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
    equivalence: float = 0.05
    lines: int
    curves: int


def anytime_p(gains: Floats, *, two_sided: bool, margin: float = 0.0) -> float:
    """Return a p-value of gains [questions], between -1 and 1, that holds whenever one stops asking.

    Two-sided: against a mean of 0, 1 / p is the mean of the e-values of a drop and of a gain. Otherwise the alternative
    is a mean below -margin.

    Example:
        >>> anytime_p(np.full(20, -1.0), two_sided=True) < 1e-3, anytime_p(np.zeros(20), two_sided=True)
        (True, 1.0)
    """
    values = gains.round(DECIMALS) + margin
    log_e = log_e_mean(-values, least=-1 - margin)
    if two_sided:
        log_e = float(np.logaddexp(log_e, log_e_mean(values, least=-1 + margin))) - log(2)
    return min(1.0, exp(-log_e))


def judge(gains: Floats, rule: StoppingRule) -> Verdict:
    """Return what gains [questions], between -1 and 1, say so far.

    A drop or gain is certain at a p of alpha / lines / 2: half of alpha is left for the tests of the cells that go on
    to the end. The leaderboard, which corrects for its lines and for both looks, then says so too. Equivalence
    is certain when a drop and a gain as large as the margin are both excluded at alpha / curves.
    """
    if anytime_p(gains, two_sided=True) <= rule.alpha / rule.lines / LOOKS:
        return "gain" if gains.mean() > 0 else "drop"
    if min(_log_e_within(values, rule.equivalence) for values in (gains, -gains)) >= log(rule.curves / rule.alpha):
        return "equivalent"
    return "undecided"


def share_sequence(values: Floats, *, alpha: float) -> tuple[float, float]:
    """Return the confidence sequence (low, high) of the mean of values [questions] between 0 and 1.

    Example:
        >>> low, high = share_sequence(np.array([0.0, 1.0] * 50), alpha=0.05)
        >>> 0.3 < low < 0.5 < high < 0.7
        True
    """
    low, high = mean_sequence(2 * values - 1, alpha=alpha)
    return (1 + low) / 2, (1 + high) / 2


def _log_e_within(gains: Floats, margin: float) -> float:
    """Return log e against a mean gain of -margin or less."""
    return log_e_mean(gains.round(DECIMALS) + margin, least=margin - 1)
