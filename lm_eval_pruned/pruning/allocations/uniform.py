"""Uniform allocation: every block gets the target sparsity."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.pruning.allocations.kinds import allocation
from lm_eval_pruned.pruning.allocations.signals.constant import CONSTANT


@allocation("uniform", signal=CONSTANT)
def uniform(
    signal: Float[Tensor, " blocks"], target: float, sizes: Float[Tensor, " blocks"]
) -> Float[Tensor, " blocks"]:
    """Give every block the target sparsity; needs no signal.

    Example:
        >>> uniform(torch.zeros(3), 0.5, torch.ones(3)).tolist()
        [0.5, 0.5, 0.5]
    """
    del signal
    return torch.full(sizes.shape, target, dtype=torch.float64)
