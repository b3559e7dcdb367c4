"""Percentile bootstrap clustered by question: each question is drawn with all its samples, seeds and budgets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lm_eval_pruned.errors import ArgumentError

RESAMPLES = 2_000
SEED = 0
# Numbers held in memory at once.
_BLOCK = 4_000_000


def bootstrap_interval(
    values: NDArray[np.float64], *, level: float = 0.95, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Return the percentile interval of the mean over questions, [low, high] for each column.

    `values` is [questions] or [questions, columns]: for each question a number, or a curve with one column per budget.
    The counts of the distinct rows in a resample are multinomial, so equal rows are drawn together. The seed is fixed.

    Raises:
        ArgumentError: there are no questions.

    Example:
        >>> bootstrap_interval(np.array([0.25, 0.25, 0.25])).tolist()
        [0.25, 0.25]

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13; by cluster: Miller, arXiv 2411.00640.
    """
    if not len(values):
        raise ArgumentError("a bootstrap needs at least one question")
    rows = values.reshape(len(values), -1)
    distinct, counts = np.unique(rows, axis=0, return_counts=True)
    generator = np.random.default_rng(SEED)
    block = max(1, _BLOCK // len(distinct))
    means = [
        generator.multinomial(len(rows), counts / len(rows), size=min(block, resamples - start)) @ distinct / len(rows)
        for start in range(0, resamples, block)
    ]
    edges = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0).T
    return edges.reshape(*values.shape[1:], 2)
