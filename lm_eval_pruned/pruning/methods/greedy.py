"""Greedy search: one block after another is dropped, each time the one whose absence hurts least."""

from __future__ import annotations

from collections.abc import Collection

from lm_eval_pruned.pruning.methods.kinds import search_method
from lm_eval_pruned.pruning.methods.reshaping import Damage


@search_method("greedy")
def greedy(blocks: int, count: int, damage: Damage) -> Collection[int]:
    """Drop one block after another, each time the one without which the calibration text suffers least.

    b_k = argmin_b D({b_1, ..., b_{k-1}, b}), the first of equals, for D the mean loss of the text in nats a token
    (`greedy_by=perplexity`) or KL(dense || pruned) along it (`greedy_by=kl`) with these blocks left out.

    Example:
        >>> greedy(3, 2, lambda removed: sum((5, 1, 3)[block] for block in removed))
        [1, 2]

    Reference: Song et al. 2024, arXiv 2402.09025 (SLEB).
    Differs: by default, the published code keeps the first and the last block.
    """
    removed: list[int] = []
    for _ in range(count):
        left = [block for block in range(blocks) if block not in removed]
        removed.append(min(left, key=lambda block: damage((*removed, block))))
    return removed
