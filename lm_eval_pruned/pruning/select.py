"""Selecting: the k-th lowest of many scores by counting them, which on a CPU is several times as fast as ranking."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

# The upper half of a float32: sign, exponent and the seven bits of mantissa that a bfloat16 has.
BUCKETS = 1 << 16
# A piece stays in the cache of a core from one step to the next.
PIECE = 1 << 18
# Below this many there is nothing to win.
FEW = 1 << 15


def kth_lowest(score: Float[Tensor, "groups members"], k: int) -> Float[Tensor, "groups 1"]:
    """Return the `k`-th lowest score of every group, counted from 1; no score is NaN.

    A single large float32 group on a CPU is counted by the upper halves of its numbers, whose order is that of the
    numbers; then only those that share the half of the `k`-th one need be ranked. Among scores that are bfloat16
    numbers, as magnitudes are, these are all equal.

    Example:
        >>> kth_lowest(torch.tensor([[3.0, -1.0, 2.0], [5.0, 4.0, 6.0]]), 2).tolist()
        [[2.0], [5.0]]
    """
    groups, members = score.shape
    if groups > 1 or members < FEW or score.device.type != "cpu" or score.dtype != torch.float32:
        return score.kthvalue(k, dim=-1, keepdim=True).values
    scores = score.detach().contiguous().reshape(-1).numpy()
    pieces = [scores[start : start + PIECE] for start in range(0, members, PIECE)]
    counts = np.zeros(BUCKETS, dtype=np.int64)
    for piece in pieces:
        counts += np.bincount(_bucket(piece), minlength=BUCKETS)
    below = counts.cumsum()
    bucket = int(below.searchsorted(k))
    ties = torch.from_numpy(np.concatenate([piece[_bucket(piece) == bucket] for piece in pieces]))
    lowest, highest = ties.aminmax()
    if lowest == highest:
        return lowest.reshape(1, 1)
    return ties.kthvalue(k - (int(below[bucket - 1]) if bucket else 0)).values.reshape(1, 1)


def _bucket(piece: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Order floats by the upper halves of their bits: flip the sign bit of positive ones, all bits of negative ones."""
    upper = (piece.view(np.uint32) >> 16).astype(np.uint16)
    if not (piece < 0).any():
        return upper | np.uint16(0x8000)
    return upper ^ np.where(upper >> 15, np.uint16(0xFFFF), np.uint16(0x8000))
