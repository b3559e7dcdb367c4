"""A mask keeps the highest scores of each group; how many go is exact, and ties go by position."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lm_eval_pruned.config import Compare
from lm_eval_pruned.errors import PruningError


def keep_highest(score: Float[Tensor, "groups members"], zeros: int) -> Bool[Tensor, "groups members"]:
    """Mark all but the `zeros` lowest scores of every group; among equal scores the first ones go.

    Example:
        >>> import torch
        >>> keep_highest(torch.tensor([[3.0, 1.0, 1.0, 2.0]]), 1).tolist()
        [[True, False, True, True]]
    """
    if zeros == 0:
        return torch.ones_like(score, dtype=torch.bool)
    threshold = score.kthvalue(zeros, dim=-1, keepdim=True).values
    below, tied = score < threshold, score == threshold
    room = zeros - below.sum(dim=-1, keepdim=True)
    return ~(below | (tied & (tied.cumsum(dim=-1) <= room)))


def keep_mask(score: Float[Tensor, "out in"], sparsity: float, compare: Compare) -> Bool[Tensor, "out in"]:
    """Return which weights stay when `sparsity` of them is removed, compared within a row or within the matrix.

    A row loses `floor(in * sparsity)` weights, a matrix `floor(out * in * sparsity)`.

    Raises:
        PruningError: a score is not a number, so that no ranking exists.
    """
    _check(score)
    groups = score.reshape(1, -1) if compare == "matrix" else score
    return keep_highest(groups, int(groups.shape[-1] * sparsity)).reshape(score.shape)


def keep_pattern(score: Float[Tensor, "out in"], kept: int, size: int) -> Bool[Tensor, "out in"]:
    """Return which weights stay under an N:M pattern: the `kept` highest of every `size` neighbours in a row.

    Raises:
        PruningError: a score is not a number, or the rows do not divide into groups.

    Example:
        >>> import torch
        >>> keep_pattern(torch.tensor([[4.0, 3.0, 2.0, 1.0, 1.0, 2.0, 3.0, 4.0]]), 2, 4).int().tolist()
        [[1, 1, 0, 0, 0, 0, 1, 1]]

    Reference: Mishra et al. 2021, arXiv 2104.08378.
    """
    _check(score)
    if score.shape[1] % size:
        raise PruningError(f"its {score.shape[1]} columns do not divide into groups of {size}: choose another pattern")
    return keep_highest(score.reshape(-1, size), size - kept).reshape(score.shape)


def _check(score: Tensor) -> None:
    if score.isnan().any():
        raise PruningError("a weight or an activation is not a number (NaN): check the checkpoint and its dtype")
