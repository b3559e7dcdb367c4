"""Mask rules: keep the highest scores within each row or matrix, with exact counts and ties broken by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.masks.large import ScoreRows, keep_highest_of_many, row_slices

# The set of scores that are ranked against one another.
Ranking = Literal["row", "matrix"]

# With fewer scores, `kthvalue` is as fast as selecting the threshold by counting.
MANY = 1 << 15
# With at least so many scores in a row, numpy's selection, by vector instructions, takes a tenth of the time.
WIDE = 64


def keep_highest(score: Float[Tensor, "rankings members"], zeros: int) -> Bool[Tensor, "rankings members"]:
    """Keep all but the `zeros` lowest scores of every row of `score`; among equal scores the first are removed.

    Example:
        >>> import torch
        >>> keep_highest(torch.tensor([[3.0, 1.0, 1.0, 2.0]]), 1).tolist()
        [[True, False, True, True]]
    """
    if zeros == 0:
        return torch.ones_like(score, dtype=torch.bool)
    if score.numel() >= MANY and len(score) == 1 and score.device.type == "cpu" and score.dtype == torch.float32:
        return keep_highest_of_many(lambda rows: score.T[rows], score.numel(), 1, zeros).T
    threshold = _kth_lowest(score, zeros)
    above = score > threshold
    if above.sum() == above.numel() - zeros * len(above):
        return above
    below, tied = score < threshold, score == threshold
    tied_zeros = zeros - below.sum(dim=-1, keepdim=True)
    return ~(below | (tied & (tied.cumsum(dim=-1) <= tied_zeros)))


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskRule:
    """The rule that turns the scores of a matrix into a keep mask.

    A row loses `floor(in * sparsity)` weights, a matrix `floor(out * in * sparsity)`.

    Attributes:
        sparsity: fraction of the weights to remove.
        compare: whether scores are ranked within each row or within the whole matrix.
        pattern: (N, M) keeps the N highest of every M neighbours in a row, whatever the sparsity.
        every_tie: remove every score up to and including the one after the count, as the published magnitude pruning
            does.

    Example:
        >>> rule = MaskRule(sparsity=0.5, compare="row")
        >>> rule.keep(torch.tensor([[3.0, 1.0, 2.0, 4.0]])).int().tolist()
        [[1, 0, 0, 1]]
    """

    sparsity: float
    compare: Ranking
    pattern: tuple[int, int] | None = None
    every_tie: bool = False

    def zeros(self, rows: int, columns: int) -> int:
        """Return how many weights of a matrix [rows columns] are removed; with `every_tie`, at least that many.

        Raises:
            PruningError: the columns do not divide into groups of M.

        Example:
            >>> [MaskRule(sparsity=0.5, compare=compare).zeros(3, 5) for compare in ("row", "matrix")]
            [6, 7]
        """
        if self.pattern is not None:
            n, m = self.pattern
            check_divides(columns, m)
            return rows * columns // m * (m - n)
        if self.compare == "row":
            return rows * int(columns * self.sparsity)
        return int(rows * columns * self.sparsity) + self.every_tie

    def keep(self, score: Float[Tensor, "out columns"], *, start: int = 0) -> Bool[Tensor, "out columns"]:
        """Return the keep mask of a matrix, or of a slice of its columns that begins at column `start`.

        Slices taken one after another remove together exactly as many weights as the whole matrix would lose.

        Raises:
            PruningError: a score is NaN, so that no ranking exists, or the columns do not divide into groups of M.
        """
        return self.keep_unchecked(_checked(score), start=start)

    def keep_unchecked(self, score: Float[Tensor, "out columns"], *, start: int = 0) -> Bool[Tensor, "out columns"]:
        """Return the same as `keep`, without looking for NaN, for which the host would wait for the device."""
        rows, columns = score.shape
        if self.pattern is not None:
            return keep_pattern(score, *self.pattern)
        height = rows if self.compare == "matrix" else 1
        zeros = int((start + columns) * height * self.sparsity) - int(start * height * self.sparsity)
        ranked = score.reshape(1, -1) if self.compare == "matrix" else score
        if self.every_tie:
            return (ranked > _kth_lowest(ranked, zeros + 1)).reshape(score.shape)
        return keep_highest(ranked, zeros).reshape(score.shape)

    def keep_by_rows(self, score: ScoreRows, weight: Float[Tensor, "out columns"]) -> Bool[Tensor, "out columns"]:
        """Return the keep mask of a whole matrix without holding all its scores in memory.

        On a GPU, scores that are ranked within the matrix are all in memory nevertheless.

        Args:
            score: returns the float32 scores of a slice of rows, which depend on no other row.
            weight: the matrix; its device and shape are used.

        Raises:
            PruningError: as `keep`.
        """
        rows, columns = weight.shape
        if self.pattern is None and self.compare == "matrix":
            zeros = int(rows * columns * self.sparsity)
            if weight.device.type == "cpu" and weight.numel() >= MANY and zeros > 0 and not self.every_tie:
                return keep_highest_of_many(lambda some_rows: _checked(score(some_rows)), rows, columns, zeros)
            return self.keep(score(slice(None)))
        keep = torch.empty(weight.shape, dtype=torch.bool, device=weight.device)
        for some_rows in row_slices(rows, columns, weight.device):
            keep[some_rows] = self.keep(score(some_rows))
        return keep


def keep_pattern(score: Float[Tensor, "out in"], n: int, m: int) -> Bool[Tensor, "out in"]:
    """Return the keep mask of an N:M pattern: the `n` highest of every `m` neighbours in a row.

    Raises:
        PruningError: the columns do not divide into groups of `m`.

    Example:
        >>> import torch
        >>> keep_pattern(torch.tensor([[4.0, 3.0, 2.0, 1.0, 1.0, 2.0, 3.0, 4.0]]), 2, 4).int().tolist()
        [[1, 1, 0, 0, 0, 0, 1, 1]]

    Reference: Mishra et al. 2021, arXiv 2104.08378.
    """
    check_divides(score.shape[1], m)
    groups = score.reshape(-1, m)
    if score.device.type == "cpu":
        return keep_highest(groups, m - n).reshape(score.shape)
    # The host does not wait for the device to tell whether there are ties.
    removed = groups.sort(dim=-1, stable=True).indices[:, : m - n]
    return torch.ones_like(groups, dtype=torch.bool).scatter_(-1, removed, False).reshape(score.shape)


def _kth_lowest(score: Tensor, k: int) -> Tensor:
    """Return the `k`-th lowest score of every row [rankings 1]; `k` counts from 1."""
    # On CUDA, `kthvalue` gives each row to a single thread block: a second for a matrix that takes 15 ms to sort.
    if len(score) == 1 and score.device.type != "cpu":
        return score.sort(dim=-1).values[:, k - 1 : k]
    if score.shape[1] >= WIDE and score.device.type == "cpu" and score.dtype == torch.float32:
        return torch.from_numpy(np.partition(score.detach().numpy(), k - 1, axis=-1)[:, k - 1 : k])
    return score.kthvalue(k, dim=-1, keepdim=True).values


def check_divides(columns: int, m: int) -> None:
    """Check that the columns of a matrix divide into groups of M.

    Raises:
        PruningError: they do not.
    """
    if columns % m:
        raise PruningError(f"its {columns} columns do not divide into groups of {m}: choose another pattern")


def check_numbers(largest: Float[Tensor, ""]) -> None:
    """Check that the largest of some scores is a number, and so are all: the maximum of scores with NaN is NaN.

    Raises:
        PruningError: it is NaN.
    """
    if largest.isnan():
        raise PruningError("a weight or an activation is not a number (NaN): check the checkpoint and its dtype")


def _checked(score: Tensor) -> Tensor:
    check_numbers(score.amax())
    return score
