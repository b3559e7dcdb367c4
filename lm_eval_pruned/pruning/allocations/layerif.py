"""LayerIF: blocks whose training gradients agree with held-out gradients get less sparsity."""

from __future__ import annotations

import torch
from jaxtyping import Float
from scipy.signal import savgol_filter
from torch import Tensor

from lm_eval_pruned.config import Direction
from lm_eval_pruned.pruning.allocations.kinds import allocation
from lm_eval_pruned.pruning.allocations.signals.influence import INFLUENCE
from lm_eval_pruned.pruning.allocations.spread import to_unit
from lm_eval_pruned.pruning.allocations.target import scale_to_target

WINDOW, ORDER = 5, 2


@allocation(
    "layerif",
    signal=INFLUENCE,
    settings=("layerif_min", "layerif_max", "layerif_direction"),
    split_by="layerif_groups",
)
def layerif(
    signal: Float[Tensor, " blocks"],
    target: float,
    sizes: Float[Tensor, " blocks"],
    *,
    layerif_min: float = 0.05,
    layerif_max: float = 0.40,
    layerif_direction: Direction = "protect",
) -> Float[Tensor, " blocks"]:
    """Give blocks of high influence less sparsity (`protect`) or more (`prune`), smoothed along the depth.

    n = the scores brought to [0, 1], smoothed by a Savitzky-Golay filter (5 blocks, order 2), brought to [0, 1] again;
    s_l = eta ((1 - n_l) (max - min) + min), or n_l in place of 1 - n_l, eta such that the size-weighted mean is the
    target: the highest is max / min times the lowest. Attention and MLP are allocated apart, each to the same mean.

    Example:
        >>> layerif(torch.tensor([0.0, 1.0]), 0.45, torch.ones(2), layerif_min=0.1, layerif_max=0.8).tolist()
        [0.8, 0.1]

    Reference: arXiv 2604.25098, after Askari et al. 2025, arXiv 2505.23811, whose direction is `prune`.
    Differs: what the factor lifts above 0.99 is clamped and the mean restored; models of fewer than five blocks are
    smoothed over as many as they have, an odd number.
    """
    relative = place_by_influence(signal, layerif_direction)
    return scale_to_target(relative * (layerif_max - layerif_min) + layerif_min, target, sizes)


def place_by_influence(signal: Float[Tensor, " blocks"], direction: Direction) -> Float[Tensor, " blocks"]:
    """Return the relative sparsity of each block, from 0 for the one that loses least to 1 for the one that loses most.

    Example:
        >>> place_by_influence(torch.tensor([3.0, 1.0]), "protect").tolist()
        [0.0, 1.0]
    """
    unit = to_unit(signal.abs())
    window = min(WINDOW, len(unit) - 1 + len(unit) % 2)
    if window > ORDER:
        smooth = savgol_filter(unit.numpy(), window, ORDER)
        unit = to_unit(torch.from_numpy(smooth).clamp(0.0, 1.0))
    return 1 - unit if direction == "protect" else unit
