"""Searched allocation: candidates are pruned and run along held-out text of the dense model."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.pruning.allocations.kinds import allocation
from lm_eval_pruned.pruning.allocations.signals.searched import SEARCHED
from lm_eval_pruned.pruning.allocations.target import shift_to_target


@allocation("search", signal=SEARCHED)
def search(
    signal: Float[Tensor, " blocks"], target: float, sizes: Float[Tensor, " blocks"]
) -> Float[Tensor, " blocks"]:
    """Give each block the sparsity at which a search found the least KL divergence from the dense model.

    The signal holds the sparsities that were found; they are shifted by the rounding error of their mean.

    Example:
        >>> import torch
        >>> search(torch.tensor([0.25, 0.75]), 0.5, torch.ones(2)).round(decimals=9).tolist()
        [0.25, 0.75]

    Reference: Sieberling et al. 2024, arXiv 2410.14649.
    Differs: sparsities are those of blocks and not of matrices; candidates are pruned from dense statistics when they
    are asked for, and not read from a database; probes of runs of blocks come first; one candidate at a time, on all
    held-out windows.
    """
    return shift_to_target(signal, target, sizes)
