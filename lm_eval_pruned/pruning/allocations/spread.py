"""Min-max normalisation of a signal."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def to_unit(signal: Float[Tensor, " blocks"]) -> Float[Tensor, " blocks"]:
    """Scale a signal linearly to [0, 1]; a constant signal becomes 0, where the published formulas divide by zero.

    Example:
        >>> import torch
        >>> to_unit(torch.tensor([2.0, 4.0, 3.0])).tolist()
        [0.0, 1.0, 0.5]
    """
    signal = signal.double()
    spread = signal.max() - signal.min()
    return (signal - signal.min()) / spread if spread > 0 else signal.new_zeros(signal.shape)
