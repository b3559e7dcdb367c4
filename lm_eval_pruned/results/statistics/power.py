"""Power of a paired comparison: the smallest drop that its own test finds significant with a probability of 80 %."""

from __future__ import annotations

from functools import lru_cache, partial
from math import ceil, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from lm_eval_pruned.results.statistics.paired import DECIMALS, is_mcnemar, lattice_step

Floats = NDArray[np.float64]

POWER = 0.8
# Smaller drops count as zero.
_LEAST = 1e-9
# Numbers of changed questions further from their mean than this many standard deviations are left out.
_REACH = 8.0
# How often the typical size of a change is doubled in search of a drop that is found, in a metric without bounds.
_DOUBLINGS = 30
_PRECISION = 1e-5
# Gaps between sums are filled where the margins on unchanged questions have 1 / this of their width (by simulation).
_FILL = 4.0


class Churn(NamedTuple):
    """The changes that are expected of two equally good runs: distinct sizes of |new - old|, and their shares.

    `sizes` [k] are positive, `shares` [k] are shares of all questions, half of which are gains and half losses.
    """

    sizes: Floats
    shares: Floats

    @property
    def typical(self) -> float:
        """The typical size of a change, E d^2 / E |d|; a whole answer if nothing changes."""
        weights = self.sizes * self.shares
        return float(self.sizes @ weights / weights.sum()) if weights.any() else 1.0


class _Test(NamedTuple):
    """A one-sided test: its level, its margin, and half the distance of the sums that sign flips can give."""

    level: float
    margin: float
    step: float


def detectable_drop(
    differences: Floats, *, alpha: float, margin: float = 0.0, is_two_sided: bool = False, bounded: bool = True
) -> float | None:
    """Return the smallest true drop that the test of these differences finds with the probability POWER.

    The alternative: the observed churn stays, half gains and half losses, and a drop of x adds losses of their typical
    size, or of a whole answer if nothing changed. For McNemar's test the power is exact; for sign flips, and with a
    margin, it is expanded in moments. A two-sided test at alpha finds a drop where a one-sided one at alpha / 2 does.

    None if even a loss on every question would not be found, as for 4 questions at alpha = 0.05, and if nothing changed
    in a metric without bounds, whose sizes of changes are then unknown.

    Args:
        differences: new - old for each question, [questions].
        alpha: significance level.
        margin: drop that is tolerated, a fraction; it is included in what is returned.
        is_two_sided: whether the test also asks for gains.
        bounded: whether the metric lies between 0 and 1, so that no drop exceeds 1.

    Example:
        >>> round(detectable_drop(np.zeros(30), alpha=0.05), 3)
        0.214
        >>> detectable_drop(np.zeros(4), alpha=0.05)

    Reference: Duffy, Biometrics 40 (1984), for the exact power of McNemar's test.
    """
    differences = differences.round(DECIMALS)
    n, churn = len(differences), observed_churn(differences)
    if not bounded and not churn.sizes.size:
        return None
    test = _Test(alpha / 2 if is_two_sided else alpha, margin, _step(differences, margin))
    power = (
        partial(mcnemar_power, n, float(churn.shares.sum()), level=test.level)
        if is_mcnemar(differences) and not margin
        else partial(_sign_flip_power, n, churn, test)
    )
    low, high = margin + _LEAST, 1.0
    if not bounded:
        sizes = (margin + churn.typical * 2.0**doubling for doubling in range(_DOUBLINGS))
        high = next((size for size in sizes if power(size) >= POWER), margin)
    if power(high) < POWER:
        return None
    if power(low) >= POWER:
        return low
    return float(optimize.brentq(lambda drop: power(drop) - POWER, low, high, rtol=_PRECISION))


def observed_churn(differences: Floats) -> Churn:
    """Return the changes that are noise: all of them, but for the net change that is larger than chance explains.

    Chance alone gives a net change D = |sum d| with E D^2 = sum d^2, and rarely more than twice its standard deviation.
    So the rest, sqrt(D^2 - 4 sum d^2), is taken for a true difference, and the shares of all sizes are reduced by its
    part of sum |d|.

    Example:
        >>> observed_churn(np.array([-1.0, 1.0, 0.0, 0.0])).shares.tolist()
        [0.5]
        >>> observed_churn(np.full(100, -1.0)).shares.round(3).tolist()
        [0.02]
    """
    changed = differences[differences != 0]
    sizes, counts = np.unique(np.abs(changed), return_counts=True)
    net = sqrt(max(0.0, float(changed.sum()) ** 2 - 4 * float(np.square(changed).sum())))
    noise = max(0.0, 1 - net / float(np.abs(changed).sum())) if changed.size else 0.0
    return Churn(sizes, noise * counts / len(differences))


def mcnemar_power(questions: int, churn: float, drop: float, *, level: float) -> float:
    """Return the probability that the exact one-sided McNemar test finds a drop.

    The number of changed questions is N ~ Binomial(questions, churn + drop), at most all; of these, gains ~
    Binomial(N, churn / 2 / (churn + drop)). The sum is over N, and over the gains with which N is significant.

    Example:
        >>> round(mcnemar_power(30, 0.0, 0.214, level=0.05), 3)
        0.8
    """
    changed = min(1.0, churn + drop)
    gained = (changed - drop) / 2 / changed
    mean, spread = questions * changed, _REACH * sqrt(questions * changed * (1 - changed)) + _REACH
    totals = np.arange(max(0, int(mean - spread)), min(questions, ceil(mean + spread)) + 1)
    allowed = _allowed_gains(level, 1 << questions.bit_length())[totals]
    found = np.where(allowed >= 0, special.bdtr(np.maximum(allowed, 0.0), totals, gained), 0.0)
    return float(stats.binom.pmf(totals, questions, changed) @ found)


@lru_cache(maxsize=64)
def _allowed_gains(level: float, count: int) -> Floats:
    """Return, for 0 to count changed questions, the most gains with which the losses are significant; -1 for none."""
    totals = np.arange(count + 1)
    least = np.maximum(stats.binom.ppf(level, totals, 0.5), 0.0)
    allowed: Floats = np.where(special.bdtr(least, totals, 0.5) <= level, least, least - 1)
    return allowed


def _sign_flip_power(questions: int, churn: Churn, test: _Test, drop: float) -> float:
    """Return the probability that the one-sided sign-flip test finds a drop beyond the margin.

    With e = new - old + margin it is significant where T = -sum e - step - z sqrt(sum e^2) > 0; z is the normal
    quantile of the level, corrected for the kurtosis of random signs. T is expanded to the second order around the mean
    of sum e^2, which makes it a sum over questions, and its skewness enters by the first term of an Edgeworth series.
    """
    size = max(churn.typical, drop)
    values, shares = _alternative(churn, size, drop / size)
    e = values + test.margin
    second, fourth = float(shares @ e**2), float(shares @ e**4)
    scale = sqrt(questions * second)
    quantile = float(stats.norm.isf(test.level))
    z = quantile - (quantile**3 - 3 * quantile) / 12 * fourth / (questions * second**2)
    terms = -e - z * e**2 / (2 * scale)
    mean = float(shares @ terms)
    variance, third = float(shares @ (terms - mean) ** 2), float(shares @ (terms - mean) ** 3)
    curvature = z * questions * (fourth - second**2) / (8 * scale**3)
    center = questions * mean - z * scale / 2 + curvature - test.step
    if variance <= 0:
        return float(center > 0)
    u = center / sqrt(questions * variance)
    skewness = third / variance**1.5 / sqrt(questions)
    return float(stats.norm.cdf(u) + skewness / 6 * (u**2 - 1) * stats.norm.pdf(u))


def _alternative(churn: Churn, size: float, lost: float) -> tuple[Floats, Floats]:
    """Return the differences of a question under the alternative, and their probabilities.

    Changes of whole answers exclude one another; smaller ones, means over samples, add up.
    """
    whole = bool((churn.sizes == 1).all())
    shares = churn.shares * min(1.0, (1 - lost) / churn.shares.sum()) if whole and churn.shares.any() else churn.shares
    values = np.concatenate([-churn.sizes, churn.sizes, [0.0]])
    noise = np.concatenate([shares / 2, shares / 2, [1 - shares.sum()]])
    if whole:
        noise[-1] -= lost
        return np.append(values, -size), np.append(noise, lost)
    return np.concatenate([values, values - size]), np.concatenate([noise * (1 - lost), noise * lost])


def _step(differences: Floats, margin: float) -> float:
    """Return half the distance of the sums that sign flips give; the margins on unchanged questions fill the gaps."""
    return max(0.0, lattice_step(differences) - _FILL * margin * sqrt(len(differences)))
