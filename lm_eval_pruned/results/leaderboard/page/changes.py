"""Questions that changed sides: what a pruned run lost against the dense one, and what it won."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lm_eval_pruned.results.area import AREA
from lm_eval_pruned.results.compare import Pair
from lm_eval_pruned.results.leaderboard.leaderboard import Entry
from lm_eval_pruned.results.measurement import Key

# Of one comparison so many questions lost and so many won are shown with their texts, the largest changes first,
MAX_LOST = 12
MAX_WON = 6
# and so many in the whole page, the most significant comparisons first.
MAX_CHANGES = 1_200


class Change(NamedTuple):
    """A question, by its key, and how right each of the two runs was."""

    question: int
    new: float
    old: float


class Changes(NamedTuple):
    """How many questions were lost and won, and those of them that are shown."""

    lost: int
    won: int
    shown: list[Change]


def find_changes(entries: Sequence[Entry]) -> dict[Key, Changes]:
    """Return the changes in every comparison of a table; areas have none of their own."""
    held = [entry for entry in entries if entry.against is not None and not entry.line.metric.startswith(AREA)]
    held.sort(key=lambda entry: (entry.line.p_holm or 0.0, entry.line.difference or 0.0))
    share = max(1, MAX_CHANGES // max(1, len(held)))
    left = MAX_CHANGES
    found: dict[Key, Changes] = {}
    for entry in held:
        if entry.key is not None and entry.against is not None:
            found[entry.key] = changes = changes_of(entry.against.pair, min(left, share))
            left -= len(changes.shown)
    return found


def changes_of(pair: Pair, limit: int) -> Changes:
    """Count the questions that changed, and choose at most `limit` to show, twice as many lost as won.

    Example:
        >>> from lm_eval_pruned.results.records.samples import Outcomes
        >>> keys = np.arange(3, dtype=np.uint64)
        >>> new = Outcomes(questions=keys, correct=np.array([0.0, 1.0, 1.0]))
        >>> changes_of(Pair(new, Outcomes(questions=keys, correct=np.array([1.0, 1.0, 0.0]))), limit=1)
        Changes(lost=1, won=1, shown=[Change(question=0, new=0.0, old=1.0)])
    """
    keys, new, old = np.intersect1d(pair.new.questions, pair.old.questions, assume_unique=True, return_indices=True)
    values, before = pair.new.correct[new], pair.old.correct[old]
    gains = values - before
    order = np.argsort(-np.abs(gains), kind="stable")
    lost, won = order[gains[order] < 0], order[gains[order] > 0]
    gained = min(len(won), MAX_WON, max(limit // 3, limit - len(lost)))
    places = [*lost[: min(MAX_LOST, limit - gained)].tolist(), *won[:gained].tolist()]
    shown = [Change(int(keys[place]), float(values[place]), float(before[place])) for place in places]
    return Changes(len(lost), len(won), shown)
