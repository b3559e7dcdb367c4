"""AlphaPruning: blocks whose weight spectra have heavy tails are better trained and get less sparsity."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.pruning.allocations.kinds import allocation
from lm_eval_pruned.pruning.allocations.signals.tail_exponent import TAIL_EXPONENT
from lm_eval_pruned.pruning.allocations.spread import to_unit
from lm_eval_pruned.pruning.allocations.target import scale_to_target


@allocation("alphapruning", signal=TAIL_EXPONENT, settings=("alphapruning_epsilon",))
def alphapruning(
    signal: Float[Tensor, " blocks"],
    target: float,
    sizes: Float[Tensor, " blocks"],
    *,
    alphapruning_epsilon: float = 0.3,
) -> Float[Tensor, " blocks"]:
    """Give blocks with lighter spectral tails more sparsity, within 1 ± epsilon times a common factor; needs no data.

    s_l = eta ((alpha_l - min alpha) / (max alpha - min alpha) 2 epsilon + 1 - epsilon), eta such that the size-weighted
    mean is the target, epsilon = `alphapruning_epsilon`, and alpha_l the mean exponent of the power-law tails of the
    spectra of block l.

    Example:
        >>> import torch
        >>> alphapruning(torch.tensor([2.0, 3.0, 4.0]), 0.5, torch.ones(3)).round(decimals=9).tolist()
        [0.35, 0.5, 0.65]

    Reference: Lu et al. 2024, arXiv 2410.10912.
    Differs: what the factor lifts above 0.99 is clamped and the mean restored; equal exponents give uniform (the
    reference divides by zero).
    """
    epsilon = alphapruning_epsilon
    return scale_to_target(1 - epsilon + 2 * epsilon * to_unit(signal), target, sizes)
