"""Random pruning: the control that every score has to beat."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.pruning.calibration.statistics import InputStatistics
from lm_eval_pruned.pruning.methods.kinds import score_method


@score_method("random", compare="matrix", needs_calibration=False, seeded=True)
def random(
    weight: Float[Tensor, "out in"], statistics: InputStatistics | None, *, seed: int = 0
) -> Float[Tensor, "out in"]:
    """Remove weights at random, as many of each matrix as any other method: a control; needs no data.

    S_ij is uniform on [0, 1), drawn on the CPU, so that all devices remove the same weights. `seed` follows from
    `random_seed` and the name of the matrix.

    Example:
        >>> random(torch.ones(1, 2), None, seed=3).tolist() == random(torch.zeros(1, 2), None, seed=3).tolist()
        True
    """
    del statistics
    return torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)).to(weight.device)
