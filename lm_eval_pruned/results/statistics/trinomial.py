"""Exact test that a drop is smaller than a margin, from the numbers of questions lost and won."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Values of the nuisance parameter, the share won, at which the tail is computed; dense near its ends, where nothing or
# nearly everything changes and the tail varies most.
_GRID = 64
# Numbers of questions won further from their mean than this many standard deviations are left out.
_REACH = 8.0
# Scores that differ only by rounding are ties.
_TIE = 1e-9
# Precision of a critical score, whose error is on the safe side.
_PRECISION = 1e-3


class Region(NamedTuple):
    """Outcomes in which a drop is excluded: `most_lost` [questions + 1], by the number of questions won, -1: none."""

    questions: int
    most_lost: Integers

    def probability(self, won: Floats, lost: Floats) -> Floats:
        """Return the probability of these outcomes at each pair of shares of questions won and lost, [shares]."""
        n = self.questions
        spread = _REACH * np.sqrt(n * won * (1 - won)) + _REACH
        first = np.maximum(0, np.floor(n * won - spread)).astype(np.int64)
        gains = first[:, None] + np.arange(ceil(2 * float(spread.max())) + 1)
        is_possible, gains = gains <= n, np.minimum(gains, n)
        allowed = self.most_lost[gains]
        # Given the questions won, those lost are Binomial among the rest.
        chance = np.minimum(1.0, lost / np.maximum(1 - won, 1e-300))[:, None]
        tail = np.where(allowed >= 0, special.bdtr(np.maximum(allowed, 0).astype(float), n - gains, chance), 0.0)
        # With nobody left to lose, bdtr(0, 0, chance) is 1, as it should be.
        total: Floats = (np.where(is_possible, stats.binom.pmf(gains, n, won[:, None]), 0.0) * tail).sum(axis=1)
        return total


def excludes_drop(losses: int, gains: int, questions: int, margin: float) -> float:
    """Return the exact p-value of the null hypothesis that the share lost exceeds the share won by the margin or more.

    Outcomes are ordered by the score statistic of paired proportions,

        T = (gains - losses + n margin) / sqrt(n (2 w + margin - margin^2)),

    w the share won that is most likely if the drop is the margin. p is the largest probability, over all shares won,
    of outcomes with at least this T if the drop is the margin. So a true drop of the margin is excluded with a
    probability of at most alpha, whatever the churn.

    Args:
        losses: number of questions lost.
        gains: number of questions won.
        questions: number of questions asked.
        margin: the drop in question, between 0 and 1.

    Example:
        >>> round(excludes_drop(0, 0, 149, 0.02), 4), round(0.98**149, 4)
        (0.0493, 0.0493)

    Reference: Tango, Statistics in Medicine 17 (1998), for T; Hsueh, Liu and Chen, Biometrics 57 (2001), for the test.
    """
    score = _score(np.array(losses), np.array(gains), questions, margin)
    return _size(region(questions, margin, float(score) - _TIE), margin)


@lru_cache(maxsize=1024)
def rejection_region(questions: int, margin: float, level: float) -> Region:
    """Return the outcomes whose p-value by `excludes_drop` is at most `level`."""
    middle = float(stats.norm.isf(level))
    low, high = middle - 1.0, middle + 1.0
    while _size(region(questions, margin, high), margin) > level:
        low, high = high, high + 1.0
    while high - low > _PRECISION:
        score = (low + high) / 2
        if _size(region(questions, margin, score), margin) > level:
            low = score
        else:
            high = score
    return region(questions, margin, high)


def region(questions: int, margin: float, score: float) -> Region:
    """Return the outcomes with at least this score: the most losses for each number of gains, by bisection."""
    gains = np.arange(questions + 1)
    low, high = np.full_like(gains, -1), questions - gains
    while (low < high).any():
        middle = (low + high + 1) // 2
        is_inside = _score(np.maximum(middle, 0), gains, questions, margin) >= score
        low, high = np.where(is_inside, middle, low), np.where(is_inside, high, middle - 1)
    return Region(questions, low)


def _score(losses: Integers, gains: Integers, questions: int, margin: float) -> Floats:
    # The most likely share won if the drop is the margin: the root of 2 n w^2 - b w - gains margin (1 - margin).
    b = (losses + gains) * (1 - margin) - 2 * margin * (questions - losses)
    won = (b + np.sqrt(b**2 + 8 * questions * gains * margin * (1 - margin))) / (4 * questions)
    spread = np.sqrt(questions * (2 * np.maximum(0.0, won) + margin * (1 - margin)))
    result: Floats = (gains - losses + questions * margin) / spread
    return result


def _size(outcomes: Region, margin: float) -> float:
    """Return the largest probability of the outcomes if the drop is the margin, over all shares won."""
    most = (1 - margin) / 2
    coarse = most * np.sin(np.pi / 2 * np.arange(_GRID + 1) / _GRID) ** 2
    sizes = outcomes.probability(coarse, coarse + margin)
    best = int(sizes.argmax())
    fine = np.linspace(coarse[max(0, best - 1)], coarse[min(_GRID, best + 1)], 17)
    return min(1.0, float(max(sizes[best], outcomes.probability(fine, fine + margin).max())))


def normal_power(questions: int, churn: float, margin: float, level: float) -> float:
    """Return the power of the score test by the normal approximation, if the runs are equally good.

    Args:
        questions: number of questions asked.
        churn: share of them that changes, half lost and half won.
        margin: the drop in question.
        level: level of the test.
    """
    b = churn * (1 - margin) - 2 * margin * (1 - churn / 2)
    won = (b + sqrt(b**2 + 4 * churn * margin * (1 - margin))) / 4
    excess = margin * sqrt(questions) - float(stats.norm.isf(level)) * sqrt(2 * won + margin * (1 - margin))
    return float(stats.norm.cdf(excess / sqrt(churn))) if churn else float(excess > 0)
