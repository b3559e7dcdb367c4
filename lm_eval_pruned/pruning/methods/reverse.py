"""Reverse order: the deepest blocks are dropped, and the last one is kept."""

from __future__ import annotations

from collections.abc import Collection

from lm_eval_pruned.pruning.methods.kinds import position_method


@position_method("reverse")
def reverse(blocks: int, count: int) -> Collection[int]:
    """Drop the deepest blocks but the last; needs no data.

    Blocks L - 1 - n to L - 2 of L, counted from 0, for n blocks to drop.

    Example:
        >>> list(reverse(8, 3))
        [4, 5, 6]

    Reference: the "simple" strategy of Gromov et al. 2024, arXiv 2403.17887; a baseline of arXiv 2602.01997.
    """
    return range(blocks - 1 - count, blocks - 1)
