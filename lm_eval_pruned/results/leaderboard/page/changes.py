"""Find the questions that a pruned run lost or won against the dense run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lm_eval_pruned.results.area import AREA
from lm_eval_pruned.results.comparison import Pair
from lm_eval_pruned.results.leaderboard.entries import Entry
from lm_eval_pruned.results.limits import MAX_CHANGES, MAX_LOST, MAX_WON
from lm_eval_pruned.results.measurement import Key


class Change(NamedTuple):
    """A question's key, and its metric in the pruned (`new`) and the dense run (`old`)."""

    question: int
    new: float
    old: float


class Changes(NamedTuple):
    """The numbers of questions lost and won, and the questions that are shown.

    Lost are those that became worse: lower, unless the metric is better when lower.
    """

    lost: int
    won: int
    shown: list[Change]


def find_changes(entries: Sequence[Entry]) -> dict[Key, Changes]:
    """Return the changes in every comparison of a leaderboard, except those of areas and of groups.

    Questions of a group are shown under their tasks.
    """
    compared = [
        entry
        for entry in entries
        if entry.reference is not None and not entry.line.metric.startswith(AREA) and not entry.reference.pair.is_group
    ]
    compared.sort(key=lambda entry: (entry.line.p_holm or 0.0, _sign(entry) * (entry.line.difference or 0.0)))
    share = max(1, MAX_CHANGES // max(1, len(compared)))
    remaining = MAX_CHANGES
    changes: dict[Key, Changes] = {}
    for entry in compared:
        if entry.key is not None and entry.reference is not None:
            shown = min(remaining, share)
            changes[entry.key] = select_changes(entry.reference.pair, shown, sign=_sign(entry))
            remaining -= len(changes[entry.key].shown)
    return changes


def _sign(entry: Entry) -> int:
    return -1 if entry.line.higher_is_better is False else 1


def select_changes(pair: Pair, limit: int, *, sign: int = 1) -> Changes:
    """Count the questions that changed, and choose at most `limit` to show, twice as many lost as won.

    Args:
        pair: the outcomes of both runs.
        limit: greatest number of questions to show.
        sign: -1 if lower outcomes are better.

    Example:
        >>> from lm_eval_pruned.results.records.samples import Outcomes
        >>> keys = np.arange(3, dtype=np.uint64)
        >>> new = Outcomes(questions=keys, correct=np.array([0.0, 1.0, 1.0]))
        >>> select_changes(Pair(new, Outcomes(questions=keys, correct=np.array([1.0, 1.0, 0.0]))), limit=1)
        Changes(lost=1, won=1, shown=[Change(question=0, new=0.0, old=1.0)])
    """
    keys, new, old = np.intersect1d(pair.new.questions, pair.old.questions, assume_unique=True, return_indices=True)
    values, before = pair.new.correct[new], pair.old.correct[old]
    gains = sign * (values - before)
    order = np.argsort(-np.abs(gains), kind="stable")
    lost, won = order[gains[order] < 0], order[gains[order] > 0]
    gained = min(len(won), MAX_WON, max(limit // 3, limit - len(lost)))
    indices = [*lost[: min(MAX_LOST, limit - gained)].tolist(), *won[:gained].tolist()]
    shown = [Change(int(keys[index]), float(values[index]), float(before[index])) for index in indices]
    return Changes(len(lost), len(won), shown)
