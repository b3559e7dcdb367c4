"""Selecting: the highest of very many scores are found by counting them, several times as fast as by ranking."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

# The upper half of a float32: its sign, exponent and the seven bits of mantissa that a bfloat16 has.
CODES = 1 << 16
# A piece stays in the cache of a core from one step to the next.
PIECE = 1 << 18


def keep_highest_of_many(score: Float[Tensor, " members"], zeros: int) -> Bool[Tensor, " members"]:
    """Mark all but the `zeros` lowest float32 scores on a CPU; none is NaN, and among equal scores the first ones go.

    Scores are counted by the upper halves of their bits, which are ordered as they are. Only those that share the half
    of the last one to go need to be ranked; of scores that are bfloat16 numbers, as magnitudes are, these are equal.

    Example:
        >>> keep_highest_of_many(torch.tensor([3.0, 1.0, -1.0, 1.0, 2.0]), 2).tolist()
        [True, False, False, True, True]
    """
    scores = score.numpy()
    pieces = [slice(start, start + PIECE) for start in range(0, len(scores), PIECE)]
    codes = np.empty(len(scores), dtype=np.uint16)

    def count(pieces: Sequence[slice]) -> NDArray[np.int64]:
        counts = np.zeros(CODES, dtype=np.int64)
        for piece in pieces:
            codes[piece] = _code(scores[piece])
            counts += np.bincount(codes[piece], minlength=CODES)
        return counts

    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        counts = sum(pool.map(count, (pieces[first::threads] for first in range(threads))), np.zeros(CODES, np.int64))
    below = counts.cumsum()
    last = int(below.searchsorted(zeros))
    keep = codes > last
    candidates = np.flatnonzero(codes == last)
    room = zeros - int(below[last] - counts[last])
    ties = scores[candidates]
    by_rank = candidates if ties.min() == ties.max() else candidates[ties.argsort(kind="stable")]
    keep[by_rank[room:]] = True
    return torch.from_numpy(keep)


def _code(scores: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Order floats by the upper halves of their bits: flip the sign bit of positive ones, all bits of negative ones."""
    # -0 + 0 is +0, to which it is equal.
    upper = ((scores + np.float32(0)).view(np.uint32) >> 16).astype(np.uint16)
    if scores.min() >= 0:
        return upper | np.uint16(0x8000)
    return upper ^ np.where(upper >> 15, np.uint16(0xFFFF), np.uint16(0x8000))
