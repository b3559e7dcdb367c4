"""Width: the channels of every MLP that add least to its output are removed, and the config says how many are left."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.pruning.calibration.statistics import InputStatistics
from lm_eval_pruned.pruning.methods.kinds import width_method


@width_method("width")
def width(weight: Float[Tensor, "out in"], statistics: InputStatistics) -> Float[Tensor, " in"]:
    """Remove whole channels of the MLPs, as many from each; attention stays as it is.

    S_j = sum_i |W_ij| * ||X_j||_2 for the down projection W and its inputs X: Wanda's scores, added up over the weights
    that read a channel.

    Example:
        >>> import torch
        >>> width(torch.tensor([[1.0, 3.0], [-2.0, 1.0]]), InputStatistics(norm=torch.tensor([2.0, 0.5]))).tolist()
        [6.0, 2.0]

    Reference: Wanda-sp, the structured baseline of An et al. 2023, arXiv 2312.11983 (FLAP).
    Differs: the published code removes heads of the attention as well, and ranks means, which have the same order.
    """
    return weight.float().abs().sum(dim=0) * statistics.norm.to(weight.device)
