"""Compare pairs of runs question by question: paired tests, confidence intervals, Holm-corrected p-values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.results.records.samples import Outcomes, isin
from lm_eval_pruned.results.statistics.early import LOOKS, anytime_p, difference_sequence
from lm_eval_pruned.results.statistics.intervals import difference_interval, is_bounded
from lm_eval_pruned.results.statistics.multiple import holm
from lm_eval_pruned.results.statistics.paired import Alternative, Floats, PairedTest, paired_test
from lm_eval_pruned.results.statistics.power import detectable_drop


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How a run differs from its reference run on the questions that both have answered.

    `difference` of the means, new - old whichever direction is better, with its two-sided interval [low, high],
    clustered by question, None where nothing is known of it; `p` as the test gave it and `p_holm` corrected for the
    whole table; `detectable` is the least change for the worse that the test would have found, None if none.
    """

    questions: int
    difference: float
    low: float | None
    high: float | None
    p: float
    p_holm: float
    test: str
    detectable: float | None


class Pair(NamedTuple):
    """Outcomes of a run (`new`) and of its reference run (`old`), and whether higher ones are better, if known.

    `is_stopped` if a sweep stopped one of them early: how many questions there are depends on the answers. `is_group`
    if the questions belong to several tasks, each of which has a pair of its own.
    """

    new: Outcomes
    old: Outcomes
    higher_is_better: bool | None = True
    is_stopped: bool = False
    is_group: bool = False


def is_comparable(pair: Pair) -> bool:
    """Whether the two runs have a question in common."""
    return bool(isin(pair.new.questions, pair.old.questions).any())


def differences(pair: Pair, *, center: float | None = 0.0) -> Floats:
    """Return new - old for each question that both runs have, [questions]; their mean is the difference of the metric.

    With weights w they are center + w (new - old - center) / mean(w), the linear approximation of a ratio estimator:
    they vary as the difference of the metric does if that is `center`. None stands for the observed difference.

    Raises:
        DataError: they have none in common.

    Example:
        >>> keys, sizes = np.arange(2, dtype=np.uint64), np.array([10.0, 30.0])
        >>> old = Outcomes(questions=keys, correct=np.array([1.0, 2.0]), weights=sizes)
        >>> new = Outcomes(questions=keys, correct=np.array([1.25, 2.25]), weights=sizes)
        >>> differences(Pair(new, old)).tolist(), differences(Pair(new, old), center=None).tolist()
        ([0.125, 0.375], [0.25, 0.25])
    """
    if np.array_equal(pair.new.questions, pair.old.questions):
        deltas, weights = pair.new.correct - pair.old.correct, pair.new.weights
    else:
        _, new, old = np.intersect1d(pair.new.questions, pair.old.questions, assume_unique=True, return_indices=True)
        if not len(new):
            raise DataError("the runs have no question in common")
        deltas = pair.new.correct[new] - pair.old.correct[old]
        weights = None if pair.new.weights is None else pair.new.weights[new]
    if weights is None:
        return deltas
    # If none of the shared documents has any text, nothing differs either.
    shares = weights / (weights.mean() or 1.0)
    middle = float((deltas * shares).mean()) if center is None else center
    values: Floats = middle + shares * (deltas - middle)
    return values


def gains(pair: Pair, *, center: float | None = 0.0) -> Floats:
    """Return the change for the better on each question that both runs have, [questions]; as in `differences`."""
    if pair.higher_is_better is not False:
        return differences(pair, center=center)
    return -differences(pair, center=None if center is None else -center)


def is_share(pair: Pair) -> bool:
    """Whether all outcomes lie between 0 and 1, and are not rates, which may lie there by chance."""
    outcomes = (pair.new, pair.old)
    return all(one.weights is None and is_bounded(one.correct) for one in outcomes)


def compare(pairs: Sequence[Pair], *, alpha: float, alternative: Alternative, margin: float = 0.0) -> list[Comparison]:
    """Compare all pairs of a table; p-values are corrected together, detectable drops at Holm's first step.

    Args:
        pairs: the outcomes to compare. A pair whose direction is unknown can only be tested two-sided.
        alpha: significance level of the whole table; intervals have the level 1 - alpha.
        alternative: "less" asks for changes for the worse only, "two-sided" for improvements too.
        margin: the test asks whether gain + margin is as likely above 0 as below; the gain is new - old, or old - new
            where lower is better.

    The p-value of a stopped pair holds whenever one stops asking. In a table with one, all p-values are doubled: each
    comparison may be made twice, while questions are asked and when all have been.

    Raises:
        DataError: a pair has no question in common.
    """
    looks = LOOKS if any(pair.is_stopped for pair in pairs) else 1
    deltas = [differences(pair, center=None) for pair in pairs]
    better = [gains(pair, center=-margin) for pair in pairs]
    bounded = [is_share(pair) for pair in pairs]
    tests = [
        _anytime_test(values, alternative, margin=margin, bounded=one)
        if pair.is_stopped
        else paired_test(values + margin, alternative)
        for pair, values, one in zip(pairs, better, bounded, strict=True)
    ]
    corrected = holm([min(1.0, looks * test.p) for test in tests])
    intervals = [
        _interval(pair, values, bounded=one, alpha=alpha)
        for pair, values, one in zip(pairs, deltas, bounded, strict=True)
    ]
    detectable = [
        None
        if pair.is_stopped
        else detectable_drop(
            values,
            alpha=alpha / len(pairs) / looks,
            margin=margin,
            is_two_sided=alternative == "two-sided",
            bounded=one,
        )
        for pair, values, one in zip(pairs, better, bounded, strict=True)
    ]
    return [
        Comparison(
            questions=len(values),
            difference=float(values.mean()),
            low=low,
            high=high,
            p=test.p,
            p_holm=p_holm,
            test=test.name,
            detectable=drop,
        )
        for values, test, p_holm, (low, high), drop in zip(deltas, tests, corrected, intervals, detectable, strict=True)
    ]


def _anytime_test(gains: Floats, alternative: Alternative, *, margin: float, bounded: bool) -> PairedTest:
    # Nobody knows how much one value of a metric without bounds can weigh.
    p = anytime_p(gains, two_sided=alternative == "two-sided", margin=margin) if bounded else 1.0
    return PairedTest(p, "e-process")


def _interval(pair: Pair, deltas: Floats, *, bounded: bool, alpha: float) -> tuple[float | None, float | None]:
    if pair.is_stopped:
        return difference_sequence(deltas, alpha=alpha) if bounded else (None, None)
    return difference_interval(deltas, bounded=bounded, level=1 - alpha) or (None, None)
