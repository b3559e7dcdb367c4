"""SparseGPT: remove weights column by column, and update the later weights of each row to compensate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.masks.rule import MaskRule, check_divides
from lm_eval_pruned.pruning.methods.kinds import solve_method

# Columns that are masked together and then eliminated one by one, as published.
BLOCK = 128
# Fraction of the mean diagonal that is added to the diagonal, as published: a Gram matrix of few tokens is singular.
DAMPING = 0.01


@solve_method("sparsegpt")
def sparsegpt(weight: Float[Tensor, "out in"], gram: Float[Tensor, "in in"], rule: MaskRule) -> Float[Tensor, "out in"]:
    """Remove weights in column order, and correct the later columns for each by the inverse Hessian.

    H = X X^T + damping, U^T U = H^-1 with U upper triangular. In every 128 columns (N:M: every M columns), the weights
    with the lowest S_ij = W_ij^2 / U_jj^2 are removed; then, column by column, with e = (the removed part of W_j) /
    U_jj, the columns k > j become W_k - e U_jk.

    Raises:
        PruningError: the Hessian cannot be inverted, a weight is not finite, or its columns are no multiple of M.

    Example:
        >>> rule = MaskRule(sparsity=0.5, compare="row")
        >>> [round(weight, 2) for weight in sparsegpt(torch.tensor([[1.0, 3.0]]), torch.ones(2, 2), rule)[0].tolist()]
        [0.0, 3.99]

    Reference: Frantar and Alistarh 2023, arXiv 2301.00774.
    Differs: counts are exact over the whole matrix (the reference removes all ties and one weight more in every 128
    columns); columns whose input is always 0 are removed first, but not all of them.
    """
    if rule.pattern is not None:
        check_divides(weight.shape[1], rule.pattern[1])
    solved = weight.float().clone()
    upper, dead = _inverse_factor(gram.to(solved.device))
    step = BLOCK if rule.pattern is None else rule.pattern[1]
    width = max(step, BLOCK - BLOCK % step)
    columns = solved.shape[1]
    largest = solved.new_zeros(())
    for begin in range(0, columns, width):
        end = min(begin + width, columns)
        errors = torch.empty_like(solved[:, begin:end])
        for first in range(begin, end, step):
            chosen = slice(first, min(first + step, end))
            diagonal = upper.diagonal()[chosen]
            score = (solved[:, chosen] / diagonal).square()
            score.masked_fill_(dead[chosen], 0.0)
            largest = torch.maximum(largest, score.amax())
            keep = rule.keep_unchecked(score, start=first)
            # A GPU waits for the host to launch operators: two a column. What is kept has an error of 0.
            divisor = torch.where(keep, torch.inf, diagonal)
            for column in range(first, chosen.stop):
                error = errors[:, column - begin]
                torch.div(solved[:, column], divisor[:, column - first], out=error)
                solved[:, column + 1 : end].addr_(error, upper[column, column + 1 : end], alpha=-1)
            solved[:, chosen].masked_fill_(~keep, 0.0)
        solved[:, end:].addmm_(errors, upper[begin:end, end:], alpha=-1)
    # An infinite weight makes those of later columns NaN.
    if not largest.isfinite():
        raise PruningError(
            "a weight or an activation is infinite or not a number (NaN): check the checkpoint and its dtype"
        )
    return solved


def _inverse_factor(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return U [in in], where U^T U is the inverse of the damped Gram matrix, and which inputs were always 0."""
    dead = gram.diagonal() == 0
    hessian = gram + torch.diag(dead.float())
    hessian.diagonal().add_(DAMPING * hessian.diagonal().mean())
    try:
        with _one_thread():
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
            return torch.linalg.cholesky(inverse, upper=True), dead
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        raise PruningError(
            "the gram matrix of its inputs cannot be inverted: calibrate with more tokens, or use method=wanda"
        ) from None


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one CPU thread for a `with` block: LAPACK rounds a factorisation differently with each number of threads.

    Matrix products do not, and they are nearly all of the work.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
