"""Bring sparsities to a mean: clamp what is out of range and shift the rest until the mean holds."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

# A block without any weight left passes nothing on; the last hundredth stays.
HIGHEST = 0.99

_ROUNDS = 100


def shift_to_target(
    sparsities: Float[Tensor, " blocks"], target: float, sizes: Float[Tensor, " blocks"]
) -> Float[Tensor, " blocks"]:
    """Add the constant to all sparsities that makes their size-weighted mean the target, after clamping to [0, 0.99].

    Example:
        >>> import torch
        >>> shift_to_target(torch.tensor([-0.5, 0.25, 0.5]), 0.25, torch.ones(3)).tolist()
        [0.0, 0.25, 0.5]
    """
    start, weights = sparsities.double(), sizes.double() / sizes.sum()
    # The clamped mean grows with the constant: halving an interval that holds the answer finds it to the last bit.
    low, high = -float(start.max()), 1.0 - float(start.min())
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        mean = float(((start + middle).clamp(0.0, HIGHEST) * weights).sum())
        low, high = (middle, high) if mean < target else (low, middle)
    return (start + high).clamp(0.0, HIGHEST)
