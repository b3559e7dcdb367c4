"""Compare pairs of runs for equivalence: is a drop of the margin excluded, and how many questions would exclude it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lm_eval_pruned.results.comparison import Pair, gains, is_share
from lm_eval_pruned.results.statistics.equivalence import equivalence_reach, equivalence_test
from lm_eval_pruned.results.statistics.multiple import holm


class Proof(NamedTuple):
    """Whether a drop of a margin is excluded: `p` as the test gave it, and `p_holm` corrected for the whole table.

    `power` is the probability that two equally good runs are found equivalent with these questions, at the first step
    of Holm's correction, and `needed` the number of questions with which it is 80 %, None if it is unknown.
    """

    p: float
    p_holm: float
    test: str
    power: float
    needed: int | None


def prove(pairs: Sequence[Pair], *, alpha: float, margin: float) -> list[Proof]:
    """Test each pair of a table for equivalence; p-values are corrected together.

    Args:
        pairs: the outcomes to compare, whose directions are known.
        alpha: level of the whole table.
        margin: change for the worse that is to be excluded, in the unit of the metric.

    Raises:
        DataError: a pair has no question in common.
    """
    values = [(gains(pair, center=None), is_share(pair)) for pair in pairs]
    tests = [equivalence_test(one, margin=margin, bounded=bounded) for one, bounded in values]
    level = alpha / max(1, len(pairs))
    reaches = [equivalence_reach(one, margin=margin, level=level, bounded=bounded) for one, bounded in values]
    corrected = holm([test.p for test in tests])
    return [
        Proof(test.p, p_holm, test.name, reach.power, reach.needed)
        for test, p_holm, reach in zip(tests, corrected, reaches, strict=True)
    ]
