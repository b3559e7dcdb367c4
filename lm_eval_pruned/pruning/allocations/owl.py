"""OWL: blocks with many outliers among their scores get less sparsity."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.pruning.allocations.kinds import allocation
from lm_eval_pruned.pruning.allocations.signals.outlier_ratio import OUTLIER_RATIO
from lm_eval_pruned.pruning.allocations.spread import to_unit
from lm_eval_pruned.pruning.allocations.target import shift_to_target


@allocation("owl", signal=OUTLIER_RATIO, settings=("owl_lambda",))
def owl(
    signal: Float[Tensor, " blocks"], target: float, sizes: Float[Tensor, " blocks"], *, owl_lambda: float = 0.08
) -> Float[Tensor, " blocks"]:
    """Give blocks with more outliers less sparsity, over a spread of twice `owl_lambda`.

    r_l = 2 lambda (D_l - min D) / (max D - min D);  s_l = S - r_l + mean r, with D_l the outlier ratio of block l.

    Example:
        >>> import torch
        >>> owl(torch.tensor([1.0, 2.0, 3.0]), 0.5, torch.ones(3)).tolist()
        [0.58, 0.5, 0.42]

    Reference: Yin et al. 2023, arXiv 2310.05175.
    Differs: sparsities are clamped to [0, 0.99] and the rest shifted so that the size-weighted mean is the target (the
    reference can go below 0); equal outlier ratios give uniform (the reference divides by zero).
    """
    return shift_to_target(target - 2 * owl_lambda * to_unit(signal), target, sizes)
