"""Shift or scale sparsities to a target mean, with clamping to [0, 0.99]."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

# A block with no weights left outputs nothing, so one percent always stays.
HIGHEST = 0.99

_ROUNDS = 100


def shift_to_target(
    sparsities: Float[Tensor, " blocks"], target: float, sizes: Float[Tensor, " blocks"]
) -> Float[Tensor, " blocks"]:
    """Add a constant to all sparsities so that their size-weighted mean is the target, after clamping to [0, 0.99].

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
    """Multiply all sparsities (>= 0) by a factor so that their size-weighted mean is the target, after clamping.

    If blocks of sparsity 0 keep the mean below the target at any factor, a constant is added to all instead.

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
    """Bisect: the clamped mean of `move(x)` grows with x."""
    weights = sizes.double() / sizes.double().sum()
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        mean = float((move(middle).clamp(0.0, HIGHEST) * weights).sum())
        low, high = (middle, high) if mean < target else (low, middle)
    return move(high).clamp(0.0, HIGHEST)
