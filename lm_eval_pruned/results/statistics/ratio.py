"""BCa bootstrap by question of a ratio of sums: the interval of a mean over tokens, of which questions have many."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lm_eval_pruned.results.statistics.bootstrap import RESAMPLES, SEED
from lm_eval_pruned.results.statistics.intervals import LEVEL, Interval


def ratio_interval(sums: NDArray[np.float64], counts: NDArray[np.float64], *, level: float = LEVEL) -> Interval | None:
    """Return the interval of R = sum(sums) / sum(counts) over questions; None for fewer than two, or a ratio of 0.

    The tokens of a question depend on each other, so whole questions are drawn. Of the ratios of the resamples, the
    quantiles Phi(z0 + (z0 + z) / (1 - a (z0 + z))) are taken for both z of the level: z0 is how far their median is
    from R, and a the skewness of the residuals e = sums - R counts, sum(e^3) / (6 sum(e^2)^(3/2)). So the interval
    stays within the values and follows their skewness. The seed is fixed.

    Args:
        sums: of the values of the tokens of each question [questions], none negative.
        counts: of its tokens [questions], positive.
        level: confidence level.

    Example:
        >>> low, high = ratio_interval(np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 10.0, 10.0, 10.0]))
        >>> 0.1 < low < 0.25 < high < 0.4
        True

    Reference: Efron, Better bootstrap confidence intervals, JASA 82 (1987).
    """
    n, total = len(sums), float(sums.sum())
    if n < 2 or total <= 0:
        return None
    ratio = total / float(counts.sum())
    residuals = sums - ratio * counts
    spread = float(np.square(residuals).sum())
    if not spread:
        return Interval(ratio, ratio)
    generator = np.random.default_rng(SEED)
    drawn = generator.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)
    ratios = (drawn @ sums) / (drawn @ counts)
    # Half of those that are equal count as below.
    below = float(((ratios < ratio).mean() + (ratios <= ratio).mean()) / 2)
    shift = float(stats.norm.ppf(min(max(below, 1 / RESAMPLES), 1 - 1 / RESAMPLES)))
    skewness = float((residuals**3).sum()) / (6 * spread**1.5)
    z = shift + stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(ratios, stats.norm.cdf(shift + z / (1 - skewness * z))).tolist()
    return Interval(low, high)
