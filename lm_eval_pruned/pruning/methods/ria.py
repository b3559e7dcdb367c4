"""RIA: relative importance of a weight within its row and column, times the norm of its input."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.pruning.calibration.statistics import InputStatistics
from lm_eval_pruned.pruning.methods.kinds import score_method

# Power of the input norms, `a` in the paper.
POWER = 0.5


@score_method("ria", compare="matrix", needs_calibration=True)
def ria(weight: Float[Tensor, "out in"], statistics: InputStatistics | None) -> Float[Tensor, "out in"]:
    """Score a weight by its share of its row and of its column, times the root of the norm of its input.

    S_ij = (|W_ij| / sum_k |W_ik| + |W_ij| / sum_k |W_kj|) * ||X_j||_2^0.5, compared within the whole matrix. Rows and
    columns of zeros score 0.

    Example:
        >>> import torch
        >>> ria(torch.tensor([[1.0, 3.0], [1.0, 1.0]]), InputStatistics(norm=torch.tensor([4.0, 1.0]))).tolist()
        [[1.5, 1.5], [2.0, 0.75]]

    Reference: Zhang et al. 2024, "Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models",
    ICLR 2024.
    Differs: the published code removes one weight more than the count, and every tie with it.
    """
    assert statistics is not None, "the engine passes statistics to every method that declares needs_calibration"
    size = weight.float().abs()
    rows, columns = size.sum(dim=1, keepdim=True), size.sum(dim=0, keepdim=True)
    # Only what has the sum 0 is divided by something else: numbers that are not finite have to stay visible.
    shares = (size / rows.where(rows != 0, 1)).add_(size / columns.where(columns != 0, 1))
    return shares.mul_(statistics.norm.to(weight.device).pow(POWER))
