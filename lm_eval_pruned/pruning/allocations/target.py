"""Bring sparsities to a mean: clamp what is out of range, and shift or scale the rest until the mean holds."""

from __future__ import annotations

from collections.abc import Callable

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
    start = sparsities.double()
    return _solve(lambda shift: start + shift, -float(start.max()), 1.0 - float(start.min()), target, sizes)


def scale_to_target(
    sparsities: Float[Tensor, " blocks"], target: float, sizes: Float[Tensor, " blocks"]
) -> Float[Tensor, " blocks"]:
    """Multiply all sparsities (>= 0) by the factor that makes their mean the target, after clamping to [0, 0.99].

    Where blocks of sparsity 0 keep the mean below the target at any factor, all are raised by a constant instead.

    Example:
        >>> import torch
        >>> scale_to_target(torch.tensor([0.25, 0.5, 0.75]), 0.25, torch.ones(3)).tolist()
        [0.125, 0.25, 0.375]
    """
    start = sparsities.double()
    positive = start[start > 0]
    if not len(positive):
        return shift_to_target(start, target, sizes)
    scaled = _solve(lambda factor: start * factor, 0.0, HIGHEST / float(positive.min()), target, sizes)
    reached = float((scaled * sizes.double()).sum() / sizes.double().sum())
    return scaled if abs(reached - target) < 1e-9 else shift_to_target(scaled, target, sizes)


def _solve(
    move: Callable[[float], Tensor], low: float, high: float, target: float, sizes: Tensor
) -> Float[Tensor, " blocks"]:
    """Halve the interval that holds the answer: the clamped mean grows with what `move` is given."""
    weights = sizes.double() / sizes.double().sum()
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        mean = float((move(middle).clamp(0.0, HIGHEST) * weights).sum())
        low, high = (middle, high) if mean < target else (low, middle)
    return move(high).clamp(0.0, HIGHEST)
