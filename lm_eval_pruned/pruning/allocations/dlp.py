"""DLP: blocks with a high median score are less important and get more sparsity."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.pruning.allocations.kinds import allocation
from lm_eval_pruned.pruning.allocations.signals.median_score import MEDIAN_SCORE
from lm_eval_pruned.pruning.allocations.spread import to_unit
from lm_eval_pruned.pruning.allocations.target import shift_to_target


@allocation("dlp", signal=MEDIAN_SCORE, settings=("dlp_alpha",))
def dlp(
    signal: Float[Tensor, " blocks"], target: float, sizes: Float[Tensor, " blocks"], *, dlp_alpha: float = 0.15
) -> Float[Tensor, " blocks"]:
    """Give blocks whose median score is higher more sparsity, over a spread of twice `dlp_alpha`.

    I_l = 1 - U_l / sum U;  r_l = 2 dlp_alpha (I_l - min I) / (max I - min I);  s_l = S - r_l + mean r, with U_l, the
    unimportance, the median of |W_ij| ||X_j||_2 over all matrices of block l.

    Example:
        >>> import torch
        >>> dlp(torch.tensor([1.0, 2.0, 3.0]), 0.5, torch.ones(3)).tolist()
        [0.35, 0.5, 0.65]

    Reference: Chen et al. 2025, arXiv 2505.23807.
    Differs: sparsities are clamped to [0, 0.99] and the rest shifted so that the size-weighted mean is the target. The
    published code takes the mean of the scores where the paper takes the median.
    """
    # I is a decreasing linear function of U, so its min-max normalisation is one minus that of U.
    return shift_to_target(target - 2 * dlp_alpha * (1 - to_unit(signal)), target, sizes)
