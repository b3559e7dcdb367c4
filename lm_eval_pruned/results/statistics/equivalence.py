"""Equivalence: the test that a drop is smaller than a margin, its power, and the number of questions that it needs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil, log, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.results.statistics.bootstrap import SEED, bootstrap_ts
from lm_eval_pruned.results.statistics.intervals import Moments, newcombe_bounds
from lm_eval_pruned.results.statistics.paired import DECIMALS, PairedTest, is_mcnemar
from lm_eval_pruned.results.statistics.power import POWER, Churn, observed_churn
from lm_eval_pruned.results.statistics.trinomial import excludes_drop, normal_power, rejection_region

Floats = NDArray[np.float64]

# Numbers of questions are tried in steps of 2 %, up to this many;
_STEP, _MOST = 1.02, 10_000_000
# beyond this many, the normal approximation is as good.
_EXACT = 20_000
# Pairs of runs that are simulated for the power of outcomes that are fractions: its standard error is at most 0.5 %.
_DRAWS = 10_000
# Distinct sizes of changes in them.
_SIZES = 32
_RESAMPLES = 19_999
_BISECTIONS = 40


class Reach(NamedTuple):
    """What a test of equivalence can show if both runs are equally good.

    `power` is the probability that it shows equivalence on the questions asked; `needed` is the number of questions
    with which that is POWER or more, None if it is unknown.
    """

    power: float
    needed: int | None


def equivalence_test(gains: Floats, *, margin: float, bounded: bool) -> PairedTest:
    """Test the null hypothesis that the mean gain is -margin or less; small p-values exclude such a drop.

    - Gains of -1, 0 or 1: `excludes_drop`, which is exact.
    - Other gains of a metric between 0 and 1: the level at which the one-sided bound of `newcombe_bounds` is -margin.
      Sign flips would not do: a few questions that are lost whole are not as likely to be won.
    - Metrics without bounds: the share of bootstrap-t resamples by question that are as far above their mean; 1 if all
      gains are equal, which tells nothing about those that were not seen.

    Args:
        gains: new - old for each question [questions], or old - new where lower is better.
        margin: the drop in question, positive, in the unit of the metric.
        bounded: whether the metric lies between 0 and 1.

    Raises:
        ArgumentError: there are no gains, one is not finite, or the margin is not positive.

    Example:
        >>> equivalence_test(np.zeros(149), margin=0.02, bounded=True)
        PairedTest(p=0.04928165433008947, name='score, exact')
    """
    if not gains.size or not np.isfinite(gains).all() or margin <= 0:
        raise ArgumentError("a test of equivalence needs a positive margin and one finite gain for each question")
    gains = gains.round(DECIMALS)
    if bounded and is_mcnemar(gains):
        lost, won = int((gains < 0).sum()), int((gains > 0).sum())
        return PairedTest(excludes_drop(lost, won, len(gains), margin), "score, exact")
    if bounded:
        return PairedTest(_newcombe_p(gains, margin), "Newcombe")
    ts = bootstrap_ts(gains, resamples=_RESAMPLES)
    if ts is None:
        return PairedTest(1.0, "bootstrap-t")
    score = (float(gains.mean()) + margin) / float(gains.std())
    return PairedTest((1 + int((ts >= score).sum())) / (1 + len(ts)), "bootstrap-t")


def equivalence_reach(gains: Floats, *, margin: float, level: float, bounded: bool) -> Reach:
    """Return the power of `equivalence_test` at a level, and the questions it needs, for runs that are equally good.

    The churn is the observed one, half gains and half losses, without a net change larger than chance explains. For
    outcomes of 0 or 1 the power is exact; for fractions it is simulated from a fixed seed; for metrics without bounds
    it is that of Student's test. More questions are assumed to change alike.

    Example:
        >>> equivalence_reach(np.zeros(100), margin=0.02, level=0.05, bounded=True)
        Reach(power=0.0, needed=150)
    """
    gains = gains.round(DECIMALS)
    churn = observed_churn(gains)
    if bounded and is_mcnemar(gains):
        power = partial(_exact_power, float(churn.shares.sum()), margin, level)
    elif bounded:
        power = partial(fraction_power, _merged(churn), margin, level)
    elif churn.sizes.size:
        power = partial(_student_power, churn, margin, level)
    else:
        return Reach(0.0, None)
    return Reach(power(len(gains)), _needed(power))


def _newcombe_p(gains: Floats, margin: float) -> float:
    """Return the one-sided level at which the lower bound is -margin, 1 if the mean is below that."""
    won, lost = Moments.of(gains), Moments.of(-gains)
    if won.mean - lost.mean <= -margin:
        return 1.0
    # The level as a logarithm, since bounds of small levels matter too.
    low, high = log(1e-15), log(0.5)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        bound, _ = newcombe_bounds(len(gains), won, lost, level=1 - 2 * float(np.exp(middle)))
        low, high = (low, middle) if bound > -margin else (middle, high)
    return float(np.exp(high))


def _exact_power(churn: float, margin: float, level: float, questions: int) -> float:
    if questions > _EXACT:
        return normal_power(questions, churn, margin, level)
    share = np.array([churn / 2])
    return float(rejection_region(questions, margin, level).probability(share, share)[0])


def fraction_power(churn: Churn, margin: float, level: float, questions: int) -> float:
    """Return the power for outcomes between 0 and 1 of equally good runs, simulated from a fixed seed.

    Args:
        churn: sizes and shares of the changes.
        margin: the drop in question.
        level: level of the test.
        questions: number of questions asked.
    """
    generator = np.random.default_rng(SEED)
    shares = np.concatenate([churn.shares / 2, churn.shares / 2, [max(0.0, 1 - float(churn.shares.sum()))]])
    counts = generator.multinomial(questions, shares / shares.sum(), size=_DRAWS) / questions
    sizes = churn.sizes
    won, lost = (
        Moments(drawn @ sizes, drawn @ sizes**2) for drawn in (counts[:, : len(sizes)], counts[:, len(sizes) : -1])
    )
    low, _ = newcombe_bounds(questions, won, lost, level=1 - 2 * level)
    return float((low > -margin).mean())


def _student_power(churn: Churn, margin: float, level: float, questions: int) -> float:
    if questions < 2:
        return 0.0
    shift = margin * sqrt(questions / float(churn.shares @ churn.sizes**2))
    return float(stats.nct.sf(stats.t.isf(level, questions - 1), questions - 1, shift))


def _merged(churn: Churn) -> Churn:
    """Return the churn with at most _SIZES sizes, each the root mean square of those that it stands for."""
    if churn.sizes.size <= _SIZES:
        return churn
    bins = np.minimum(_SIZES - 1, (churn.sizes / churn.sizes.max() * _SIZES).astype(np.int64))
    shares = np.bincount(bins, weights=churn.shares).astype(np.float64)
    squares = np.bincount(bins, weights=churn.shares * churn.sizes**2)
    is_used = shares > 0
    return Churn(np.sqrt(squares[is_used] / shares[is_used]), shares[is_used])


def _needed(power: Callable[[int], float]) -> int | None:
    """Return the smallest number of questions, in steps of _STEP, with which the power is POWER or more."""
    low, high = 0, ceil(log(_MOST, _STEP))
    if power(_MOST) < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(ceil(_STEP**middle)) >= POWER else (middle, high)
    return ceil(_STEP**high)
