"""Angular distance: the consecutive blocks that turn the hidden states least are dropped together."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.pruning.methods.kinds import drop_method


@drop_method("angular", consecutive=True)
def angular(
    inputs: Float[Tensor, "*tokens hidden"], outputs: Float[Tensor, "*tokens hidden"]
) -> Float[Tensor, "*tokens"]:
    """Drop the consecutive blocks across which the angle of the hidden states is smallest.

    d = arccos(X . Y / (|X| |Y|)) / pi for the hidden state X before the first and Y after the last of n consecutive
    blocks at the last token of a window, averaged over windows; an undefined cosine counts as 0.

    Example:
        >>> import torch
        >>> angular(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]])).tolist()
        [[0.5]]

    Reference: Gromov et al. 2024, arXiv 2403.17887.
    """
    before, after = inputs.double(), outputs.double()
    cosine: Tensor = (before * after).sum(dim=-1) / (before.norm(dim=-1) * after.norm(dim=-1))
    return (cosine.nan_to_num(nan=0.0).clamp(-1, 1).arccos() / math.pi).float()
