"""Confidence intervals of means over questions, and of differences of means, that hold from 30 questions on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.results.statistics.bootstrap import bootstrap_t_interval

Floats = NDArray[np.float64]

LEVEL = 0.95


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class Moments(NamedTuple):
    """The mean of values between 0 and 1, and that of their squares, of one sample or of many [samples]."""

    mean: Floats
    square: Floats

    @classmethod
    def of(cls, values: Floats) -> Moments:
        """Return the moments of values [questions], of which negative ones count as 0."""
        positive = np.maximum(values, 0.0)
        return cls(positive.mean(), np.square(positive).mean())

    @property
    def deviation(self) -> Floats:
        """The standard deviation."""
        return np.sqrt(np.maximum(0.0, self.square - self.mean**2))


def mean_interval(values: Floats, *, bounded: bool | None = None, level: float = LEVEL) -> Interval | None:
    """Return the interval of the mean of a metric, from its value for each question [questions].

    Values between 0 and 1: `proportion_interval` with the effective number of questions. Others: bootstrap-t, and None
    if all of them are equal, which tells nothing about values that were not seen. `bounded` is whether the metric lies
    between 0 and 1; None decides it from the values.

    Raises:
        ArgumentError: there are no questions.

    Example:
        >>> low, high = mean_interval(np.ones(30))
        >>> round(low, 3), high
        (0.855, 1.0)
    """
    if not len(values):
        raise ArgumentError("an interval needs at least one question")
    if is_bounded(values) if bounded is None else bounded:
        return proportion_interval(float(values.mean()), effective_questions(values), level=level)
    found = bootstrap_t_interval(values, level=level)
    return None if found is None else Interval(*found)


def difference_interval(differences: Floats, *, bounded: bool, level: float = LEVEL) -> Interval | None:
    """Return the interval of the mean of differences, one per question [questions].

    `bounded`: both metrics lie between 0 and 1. Then the mean loss L and the mean gain G each have a
    `proportion_interval`, and for the difference G - L their margins are combined, a = G - low(G), b = high(L) - L:

        low = G - L - sqrt(a^2 + b^2 - 2 rho a b),   rho = -G L / (s_G s_L),

    since a question cannot both be lost and gained. So a change that was not seen still may exist: with no change at
    all among 30 questions the interval is +-14.5 points. Otherwise: bootstrap-t, None if all differences are equal.

    Raises:
        ArgumentError: there are no questions.

    Example:
        >>> low, high = difference_interval(np.zeros(30), bounded=True)
        >>> round(low, 3), round(high, 3)
        (-0.145, 0.145)

    Reference: Newcombe, Statistics in Medicine 17 (1998), method 10; Zou and Donner, Statistics in Medicine 27 (2008).
    """
    if not len(differences):
        raise ArgumentError("an interval needs at least one question")
    if not bounded:
        found = bootstrap_t_interval(differences, level=level)
        return None if found is None else Interval(*found)
    low, high = newcombe_bounds(len(differences), Moments.of(differences), Moments.of(-differences), level=level)
    return Interval(float(low), float(high))


def proportion_interval(mean: float, questions: float, *, level: float = LEVEL) -> Interval:
    """Return the Agresti-Coull interval of the mean of a metric that is 0 or 1 for each question, with Student's t.

    With t the quantile for n - 1 degrees of freedom, n' = n + t^2 and p' = (n p + t^2 / 2) / n', it is
    p' +- t sqrt(p' (1 - p') / n'). Its coverage is at least 94 % for n >= 30 and p from 0.02 to 0.98; with the normal
    quantile it falls to 92.9 %, Wilson's interval to 91.6 % and Jeffreys' to 88 %.

    Args:
        mean: the observed mean, between 0 and 1.
        questions: number of questions, or the number that would be as informative.
        level: confidence level.

    Example:
        >>> [round(edge, 4) for edge in proportion_interval(0.8, 10)]
        [0.4314, 0.9655]

    Reference: Agresti and Coull, The American Statistician 52 (1998); Brown, Cai and DasGupta, Statistical Science 16
    (2001), section 4.
    """
    low, high = _agresti_coull(np.array(mean), np.array(questions), level)
    return Interval(float(low), float(high))


def reported_interval(
    mean: float, error: float | None, *, questions: int | None, is_share: bool, level: float = LEVEL
) -> Interval | None:
    """Return the interval of a mean of which a file gives no more than its standard error.

    A share of questions has a `proportion_interval`, with as many questions as the error stands for, 1 + p (1 - p) /
    error^2, or as were asked where the error is 0 or missing; other metrics have mean +- z error. None if an error of 0
    says nothing.

    Args:
        mean: the reported mean.
        error: its standard error, None if unknown.
        questions: number of questions, None if unknown.
        is_share: whether the metric lies between 0 and 1.
        level: confidence level.

    Example:
        >>> [round(edge, 3) for edge in reported_interval(1.0, 0.0, questions=30, is_share=True)]
        [0.855, 1.0]
        >>> reported_interval(1.0, 0.0, questions=None, is_share=True) is None
        True
    """
    if is_share and 0 <= mean <= 1:
        informative = mean * (1 - mean) / error**2 + 1 if error and 0 < mean < 1 else questions
        return proportion_interval(mean, informative, level=level) if informative else None
    if not error:
        return None
    reach = float(stats.norm.isf((1 - level) / 2)) * error
    return Interval(mean - reach, mean + reach)


def effective_questions(values: Floats) -> float:
    """Return the number of questions with outcomes of 0 or 1 whose mean would vary as much as that of `values`.

    `values` [questions] lie between 0 and 1 and are means over the samples and seeds of a question, the clusters. The
    number is n p (1 - p) / variance, both computed with one question right and one wrong added: in few questions the
    rare ones, on which all samples fail together, may be missing.

    Example:
        >>> effective_questions(np.array([0.0, 1.0, 1.0])), round(effective_questions(np.full(30, 0.5)), 9)
        (3.0, 480.0)

    Reference: Kish, Survey Sampling (1965), 8.2; Miller, arXiv 2411.00640.
    """
    return float(_effective(len(values), Moments.of(values)))


def is_bounded(values: Floats) -> bool:
    """Whether all values lie between 0 and 1, up to rounding."""
    return bool((values >= -1e-9).all() and (values <= 1 + 1e-9).all())


def newcombe_bounds(questions: int, gains: Moments, losses: Moments, *, level: float) -> tuple[Floats, Floats]:
    """Return the edges of the interval of mean gain - mean loss, as in `difference_interval`, for arrays of moments."""
    gained, lost = (_agresti_coull(one.mean, _effective(questions, one), level) for one in (gains, losses))
    spread = gains.deviation * losses.deviation
    rho = np.divide(-gains.mean * losses.mean, spread, out=np.zeros_like(spread), where=spread > 0)
    difference = gains.mean - losses.mean
    below = _combined(gains.mean - gained[0], lost[1] - losses.mean, rho)
    above = _combined(gained[1] - gains.mean, losses.mean - lost[0], rho)
    return np.maximum(-1.0, difference - below), np.minimum(1.0, difference + above)


def _agresti_coull(mean: Floats, questions: Floats, level: float) -> tuple[Floats, Floats]:
    t = -special.stdtrit(np.maximum(1.0, questions - 1), (1 - level) / 2)
    total = questions + t**2
    center = (questions * mean + t**2 / 2) / total
    reach = t * np.sqrt(np.maximum(0.0, center * (1 - center)) / total)
    return np.maximum(0.0, center - reach), np.minimum(1.0, center + reach)


def _effective(questions: int, moments: Moments) -> Floats:
    mean, square = ((questions * one + 1) / (questions + 2) for one in moments)
    return questions * np.maximum(1.0, mean * (1 - mean) / (square - mean**2))


def _combined(one: Floats, other: Floats, rho: Floats) -> Floats:
    return np.sqrt(np.maximum(0.0, one**2 + other**2 - 2 * rho * one * other))
