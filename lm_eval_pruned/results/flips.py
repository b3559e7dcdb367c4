"""Flips: which share of the questions became worse, became better, or changed from one wrong answer to another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lm_eval_pruned.results.comparison import Pair, gains
from lm_eval_pruned.results.records.samples import UNKNOWN


class Flips(NamedTuple):
    """Shares of the questions that two runs have in common.

    `harmful` and `beneficial` became worse and better, None if nobody knows what worse is. `churn` is wrong in both,
    with different answers; None where the samples have no extracted answers, or several to a question.
    """

    harmful: float | None
    beneficial: float | None
    churn: float | None


def flips(pair: Pair) -> Flips:
    """Count how a run differs from its reference run, question by question.

    Example:
        >>> from lm_eval_pruned.results.records.samples import Outcomes
        >>> keys, old = np.arange(4, dtype=np.uint64), np.array([11, 12, 13, 14])
        >>> dense = Outcomes(questions=keys, correct=np.array([1.0, 0.0, 0.0, 0.0]), answers=old)
        >>> pruned = Outcomes(questions=keys, correct=np.array([0.0, 1.0, 0.0, 0.0]), answers=np.array([5, 6, 7, 14]))
        >>> flips(Pair(pruned, dense))
        Flips(harmful=0.25, beneficial=0.25, churn=0.25)
    """
    if pair.higher_is_better is None:
        return Flips(None, None, None)
    values = gains(pair)
    return Flips(float((values < 0).mean()), float((values > 0).mean()), _churn(pair))


def _churn(pair: Pair) -> float | None:
    if pair.new.answers is None or pair.old.answers is None or not pair.higher_is_better:
        return None
    shared, new, old = np.intersect1d(pair.new.questions, pair.old.questions, assume_unique=True, return_indices=True)
    answers = [one.answers[indices] for one, indices in ((pair.new, new), (pair.old, old)) if one.answers is not None]
    is_wrong = (pair.new.correct[new] == 0) & (pair.old.correct[old] == 0)
    is_known = (answers[0] != UNKNOWN) & (answers[1] != UNKNOWN)
    if not is_known[is_wrong].all():
        return None
    return float((is_wrong & (answers[0] != answers[1])).sum() / len(shared))
