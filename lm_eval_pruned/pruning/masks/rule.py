"""A mask keeps the highest scores of each group; how many go is exact, and ties go by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.masks.large import ScoreRows, keep_highest_of_many, pieces

Group = Literal["row", "matrix"]

# Of fewer scores ranking is as fast as counting.
MANY = 1 << 15


def keep_highest(score: Float[Tensor, "groups members"], zeros: int) -> Bool[Tensor, "groups members"]:
    """Mark all but the `zeros` lowest scores of every group; among equal scores the first ones go.

    Example:
        >>> import torch
        >>> keep_highest(torch.tensor([[3.0, 1.0, 1.0, 2.0]]), 1).tolist()
        [[True, False, True, True]]
    """
    if zeros == 0:
        return torch.ones_like(score, dtype=torch.bool)
    if score.numel() >= MANY and len(score) == 1 and score.device.type == "cpu" and score.dtype == torch.float32:
        return keep_highest_of_many(lambda some: score.T[some], score.numel(), 1, zeros).T
    threshold = score.kthvalue(zeros, dim=-1, keepdim=True).values
    above = score > threshold
    if above.sum() == above.numel() - zeros * len(above):
        return above
    below, tied = score < threshold, score == threshold
    room = zeros - below.sum(dim=-1, keepdim=True)
    return ~(below | (tied & (tied.cumsum(dim=-1) <= room)))


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskRule:
    """Which scores of a matrix stay: a sparsity compared within rows or the matrix, or an N:M pattern.

    A row loses `floor(in * sparsity)` weights, a matrix `floor(out * in * sparsity)`. `pattern` is (N, M): the N
    highest of M neighbours stay, whatever the sparsity. `every_tie` removes all scores up to and including the one
    behind the count, as the published magnitude pruning does.

    Example:
        >>> rule = MaskRule(sparsity=0.5, compare="row")
        >>> rule.keep(torch.tensor([[3.0, 1.0, 2.0, 4.0]])).int().tolist()
        [[1, 0, 0, 1]]
    """

    sparsity: float
    compare: Group
    pattern: tuple[int, int] | None = None
    every_tie: bool = False

    def zeros(self, rows: int, columns: int) -> int:
        """Return how many weights of a matrix [rows columns] go; with `every_tie`, at least so many.

        Raises:
            PruningError: the rows do not divide into groups of M.

        Example:
            >>> [MaskRule(sparsity=0.5, compare=compare).zeros(3, 5) for compare in ("row", "matrix")]
            [6, 7]
        """
        if self.pattern is not None:
            kept, size = self.pattern
            _check_groups(columns, size)
            return rows * columns // size * (size - kept)
        if self.compare == "row":
            return rows * int(columns * self.sparsity)
        return int(rows * columns * self.sparsity) + self.every_tie

    def keep(self, score: Float[Tensor, "out columns"], *, start: int = 0) -> Bool[Tensor, "out columns"]:
        """Return the mask of a matrix, or of the columns of it that begin at `start`.

        Columns taken one after another lose together exactly what the whole matrix would.

        Raises:
            PruningError: a score is not a number, so that no ranking exists, or rows do not divide into groups of M.
        """
        _checked(score)
        rows, columns = score.shape
        if self.pattern is not None:
            return keep_pattern(score, *self.pattern)
        height = rows if self.compare == "matrix" else 1
        zeros = int((start + columns) * height * self.sparsity) - int(start * height * self.sparsity)
        groups = score.reshape(1, -1) if self.compare == "matrix" else score
        if self.every_tie:
            return (groups > groups.kthvalue(zeros + 1, dim=-1, keepdim=True).values).reshape(score.shape)
        return keep_highest(groups, zeros).reshape(score.shape)

    def keep_by_rows(self, score: ScoreRows, weight: Float[Tensor, "out columns"]) -> Bool[Tensor, "out columns"]:
        """Return the mask of a whole matrix without having all its scores in memory.

        On a GPU they are in memory nevertheless where they are compared within the matrix.

        Args:
            score: gives the float32 scores of some rows of `weight`, which depend on no other row.
            weight: says where the matrix is and how large.

        Raises:
            PruningError: as `keep`.
        """
        rows, columns = weight.shape
        if self.pattern is None and self.compare == "matrix":
            zeros = int(rows * columns * self.sparsity)
            if weight.device.type == "cpu" and weight.numel() >= MANY and zeros > 0 and not self.every_tie:
                return keep_highest_of_many(lambda some: _checked(score(some)), rows, columns, zeros)
            return self.keep(score(slice(None)))
        keep = torch.empty(weight.shape, dtype=torch.bool, device=weight.device)
        for some in pieces(rows, columns):
            keep[some] = self.keep(score(some))
        return keep


def keep_pattern(score: Float[Tensor, "out in"], kept: int, size: int) -> Bool[Tensor, "out in"]:
    """Return which weights stay under an N:M pattern: the `kept` highest of every `size` neighbours in a row.

    Raises:
        PruningError: the rows do not divide into groups.

    Example:
        >>> import torch
        >>> keep_pattern(torch.tensor([[4.0, 3.0, 2.0, 1.0, 1.0, 2.0, 3.0, 4.0]]), 2, 4).int().tolist()
        [[1, 1, 0, 0, 0, 0, 1, 1]]

    Reference: Mishra et al. 2021, arXiv 2104.08378.
    """
    _check_groups(score.shape[1], size)
    return keep_highest(score.reshape(-1, size), size - kept).reshape(score.shape)


def _check_groups(columns: int, size: int) -> None:
    if columns % size:
        raise PruningError(f"its {columns} columns do not divide into groups of {size}: choose another pattern")


def _checked(score: Tensor) -> Tensor:
    # The highest of numbers one of which is NaN is NaN.
    if score.amax().isnan():
        raise PruningError("a weight or an activation is not a number (NaN): check the checkpoint and its dtype")
    return score
