"""Arithmetic allocation: from each block to the next the sparsity grows by the same step."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.pruning.allocations.kinds import allocation
from lm_eval_pruned.pruning.allocations.signals.constant import CONSTANT
from lm_eval_pruned.pruning.allocations.target import shift_to_target


@allocation("arithmetic", signal=CONSTANT, settings=("arithmetic_slope",))
def arithmetic(
    signal: Float[Tensor, " blocks"],
    target: float,
    sizes: Float[Tensor, " blocks"],
    *,
    arithmetic_slope: float = 0.01,
) -> Float[Tensor, " blocks"]:
    """Give each block more sparsity than the one before it, by `arithmetic_slope`; needs no data.

    s_l = S + slope (l - mean l): errors of early blocks pass through all later ones, so early blocks lose less. A
    negative slope gives them more.

    Example:
        >>> import torch
        >>> arithmetic(torch.zeros(3), 0.5, torch.ones(3), arithmetic_slope=0.25).tolist()
        [0.25, 0.5, 0.75]

    Reference: Huang et al. 2025, arXiv 2502.14770.
    Differs: the paper searches the slope by perplexity; sparsities are clamped to [0, 0.99] and the rest shifted so
    that the size-weighted mean is the target.
    """
    del signal
    return shift_to_target(target + arithmetic_slope * torch.arange(len(sizes)).double(), target, sizes)
