"""Random blocks: the control for methods that drop blocks."""

from __future__ import annotations

from collections.abc import Collection
from random import Random

from lm_eval_pruned.pruning.methods.kinds import position_method


@position_method("random-blocks", seeded=True)
def random_blocks(blocks: int, count: int, *, seed: int = 0) -> Collection[int]:
    """Drop blocks at random, the last included: a control; needs no data.

    The smaller of two counts drops a part of what the larger drops. `seed` follows from `random_seed`.

    Example:
        >>> random_blocks(8, 2, seed=1) == random_blocks(8, 3, seed=1)[:2]
        True
    """
    order = list(range(blocks))
    Random(seed).shuffle(order)
    return order[:count]
