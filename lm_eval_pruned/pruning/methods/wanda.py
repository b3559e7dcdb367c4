"""Wanda: the score of a weight is its absolute value times the norm of its input."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.pruning.calibration.statistics import InputStatistics
from lm_eval_pruned.pruning.methods.kinds import score_method


@score_method("wanda", compare="row", needs_calibration=True, by_rows=True)
def wanda(weight: Float[Tensor, "out in"], statistics: InputStatistics | None) -> Float[Tensor, "out in"]:
    """Score a weight by its size times the norm of its input over the calibration tokens.

    S_ij = |W_ij| * ||X_j||_2, compared within each output row, so that only the ratios of the norms matter.

    Example:
        >>> import torch
        >>> wanda(torch.tensor([[1.0, -2.0]]), InputStatistics(norm=torch.tensor([3.0, 0.5]))).tolist()
        [[3.0, 1.0]]

    Reference: Sun et al. 2023, arXiv 2306.11695.
    """
    assert statistics is not None, "the engine passes statistics to every method that declares needs_calibration"
    return weight.float().abs() * statistics.norm.to(weight.device)
