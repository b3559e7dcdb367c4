"""Magnitude pruning: the score of a weight is its absolute value."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.pruning.calibration.statistics import InputStatistics
from lm_eval_pruned.pruning.methods.kinds import score_method


@score_method("magnitude", compare="matrix", needs_calibration=False, by_rows=True)
def magnitude(weight: Float[Tensor, "out in"], statistics: InputStatistics | None) -> Float[Tensor, "out in"]:
    """Score a weight by its size alone; needs no data.

    S_ij = |W_ij|, compared within the whole matrix.

    Example:
        >>> magnitude(torch.tensor([[1.0, -2.0]]), None).tolist()
        [[1.0, 2.0]]

    Reference: Han et al. 2015, arXiv 1506.02626; as used by arXiv 2306.11695.
    Differs: ties at the threshold are broken by position, so that the count is exact; the reference removes all ties.
    """
    del statistics
    return weight.abs() if weight.dtype == torch.float32 else weight.float().abs_()
