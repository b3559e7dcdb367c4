"""Bootstrap-t by question: the interval of a mean whose values have no bounds, such as a perplexity's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lm_eval_pruned.errors import ArgumentError

RESAMPLES = 2_000
SEED = 0
# Resamples without spread have no t.
_FLAT = 1e-12
# Numbers held in memory at once.
_BLOCK = 4_000_000


def bootstrap_t_interval(values: NDArray[np.float64], *, level: float = 0.95) -> tuple[float, float] | None:
    """Return the bootstrap-t interval (low, high) of the mean of `values` [questions], None if all of them are equal.

    t* = (mean* - mean) / s* over resamples; its quantiles give (mean - t*_high s, mean - t*_low s). Unlike a percentile
    interval it follows the skewness of the values. The counts of the distinct values in a resample are multinomial, so
    equal values are drawn together. The seed is fixed.

    Raises:
        ArgumentError: there are no questions.

    Example:
        >>> bootstrap_t_interval(np.array([0.25, 0.25, 0.25])) is None
        True

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap, section 12.5.
    """
    ts = bootstrap_ts(values)
    if ts is None:
        return None
    mean, spread = float(values.mean()), float(values.std())
    low, high = np.quantile(ts, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return mean - high * spread, mean - low * spread


def bootstrap_ts(values: NDArray[np.float64], *, resamples: int = RESAMPLES) -> NDArray[np.float64] | None:
    """Return t* = (mean* - mean) / s* of resamples by question, of those with a spread; None if all values are equal.

    Raises:
        ArgumentError: there are no questions.
    """
    if not len(values):
        raise ArgumentError("a bootstrap needs at least one question")
    n = len(values)
    distinct, counts = np.unique(values - values.mean(), return_counts=True)
    if len(distinct) == 1:
        return None
    generator = np.random.default_rng(SEED)
    block = max(1, _BLOCK // len(distinct))
    squares, spread = distinct**2, float(values.std())
    collected = []
    for start in range(0, resamples, block):
        drawn = generator.multinomial(n, counts / n, size=min(block, resamples - start))
        means = drawn @ distinct / n
        spreads = np.sqrt(np.maximum(0.0, drawn @ squares / n - means**2))
        has_spread = spreads > _FLAT * spread
        collected.append(means[has_spread] / spreads[has_spread])
    return np.concatenate(collected)
