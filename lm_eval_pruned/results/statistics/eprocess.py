"""E-processes: evidence against a null hypothesis that may be looked at after every question.

An e-process E_n has an expectation of at most 1 under the null hypothesis whenever one stops, so the probability that
it ever reaches 1 / alpha is at most alpha (Ville's inequality). All values here are logarithms of e.
"""

from __future__ import annotations

from math import log

import numpy as np
from numpy.typing import NDArray
from scipy import special

from lm_eval_pruned.errors import ArgumentError

Floats = NDArray[np.float64]

# Number of bets that are mixed.
BETS = 64
# Their sizes, as shares of the largest bet.
SIZES: Floats = (np.arange(BETS) + 0.5) / BETS
# Weights of bets of all sizes alike.
EVEN: Floats = np.full(BETS, 1 / BETS)
# Shares of losses that are mixed; the first two, for small drops and many questions, have little weight.
SHARES = (0.51, 0.525, *(step / 20 for step in range(11, 20)))
WEIGHTS = (0.005, 0.005, *[0.99 / 9] * 9)
_BISECTIONS = 30


def log_e_losses(losses: Floats, gains: Floats) -> Floats:
    """Return log e of numbers of questions lost and won, against a loss being at most as likely as a gain.

    The mixture of likelihood ratios over SHARES, the possible shares q of losses among the changed questions:

        e = sum over q of weight(q) (2 q)^losses (2 - 2 q)^gains.

    It depends on the counts alone, and holds in any order of the questions.

    Args:
        losses: numbers of questions lost, of any shape.
        gains: numbers of questions won, of the same shape.

    Example:
        >>> [round(float(np.exp(log_e_losses(np.array(losses), np.array(0.0)))), 2) for losses in (0.0, 1.0, 6.0)]
        [1.0, 1.5, 16.56]

    Reference: Ramdas, Grunwald, Vovk and Shafer, Statistical Science 38 (2023), section 3.
    """
    total = np.full(losses.shape, -np.inf)
    for share, weight in zip(SHARES, WEIGHTS, strict=True):
        total = np.logaddexp(total, log(weight) + losses * log(2 * share) + gains * log(2 - 2 * share))
    return total


def log_e_mean(values: Floats, least: float, *, bets: Floats = EVEN, times: float = 1) -> float:
    """Return log e of values [questions], none below `least` < 0, against a mean of at most 0.

    e is the weighted mean, over bets b = size / -least, of the capital prod(1 + b value): each factor has an
    expectation of at most 1 whatever came before, if questions come in random order. Against a mean m of values of
    -1 or more, a factor is 1 - size + size (1 + value) / (1 + m), so that e falls as m rises, whatever the weights.

    Args:
        values: the values.
        least: the least value that is possible.
        bets: weights of the bets of SIZES, [bets], with a sum of 1.
        times: 2 returns what log e would be after twice as many questions with the same shares of values.

    Raises:
        ArgumentError: a value is below `least`, or `least` is not negative.

    Example:
        >>> round(log_e_mean(np.full(88, 0.05), least=-0.95), 2) >= round(log(20), 2)
        True

    Reference: Waudby-Smith and Ramdas, Journal of the Royal Statistical Society B 86 (2024).
    """
    if least >= 0 or (values.size and float(values.min()) < least - 1e-9):
        raise ArgumentError(f"bets on values that may be {least} need that to be negative, and no value below it")
    distinct, counts = np.unique(values, return_counts=True)
    capitals = np.log1p(np.outer(SIZES / -least, distinct)) @ (times * counts)
    return float(special.logsumexp(capitals + np.log(bets)))


def mean_sequence(differences: Floats, *, alpha: float, bets: Floats = EVEN) -> tuple[float, float]:
    """Return the confidence sequence (low, high) of the mean of differences between -1 and 1, [questions].

    The intervals of all numbers of questions hold the mean at once with a probability of at least 1 - alpha: the means
    against which `log_e_mean` with these bets stays below log(2 / alpha), from either side. A test with the same bets
    and at least this limit excludes a mean exactly when the interval does.

    Example:
        >>> low, high = mean_sequence(np.zeros(100), alpha=0.05)
        >>> -0.06 < low < 0 < high < 0.06
        True
    """
    limit = log(2 / alpha)
    return _lower(differences, limit, bets), -_lower(-differences, limit, bets)


def _lower(differences: Floats, limit: float, bets: Floats) -> float:
    low, high = -1.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        is_excluded = log_e_mean(differences - middle, least=-1 - middle, bets=bets) >= limit
        low, high = (middle, high) if is_excluded else (low, middle)
    return low
