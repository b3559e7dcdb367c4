"""SparseGPT: what a removed weight did is taken over by the weights of its row that come after it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.masks.rule import MaskRule
from lm_eval_pruned.pruning.methods.kinds import solve_method

# Columns that are masked together and then corrected one by one, as published.
BLOCK = 128
# Share of the mean diagonal added to the diagonal, as published: a gram matrix of few tokens has no inverse.
DAMPING = 0.01


@solve_method("sparsegpt")
def sparsegpt(weight: Float[Tensor, "out in"], gram: Float[Tensor, "in in"], rule: MaskRule) -> Float[Tensor, "out in"]:
    """Remove weights in column order, and correct the later columns for each by the inverse Hessian.

    H = X X^T + damping, U^T U = H^-1 with U upper triangular. Of every 128 columns the weights with the lowest
    S_ij = W_ij^2 / U_jj^2 go (under N:M of every M columns); then, column by column, with e = (what was removed of
    W_j) / U_jj, the columns k > j become W_k - e U_jk.

    Raises:
        PruningError: the Hessian cannot be inverted.

    Example:
        >>> rule = MaskRule(sparsity=0.5, compare="row")
        >>> [round(weight, 2) for weight in sparsegpt(torch.tensor([[1.0, 3.0]]), torch.ones(2, 2), rule)[0].tolist()]
        [0.0, 3.99]

    Reference: Frantar and Alistarh 2023, arXiv 2301.00774.
    Differs: counts are exact over the whole matrix (the reference removes every tie and one weight more in each 128
    columns); columns whose input is always 0 go first but are not all removed.
    """
    solved = weight.float().clone()
    upper, dead = _inverse_factor(gram.to(solved.device))
    step = BLOCK if rule.pattern is None else rule.pattern[1]
    width = max(step, BLOCK - BLOCK % step)
    columns = solved.shape[1]
    for begin in range(0, columns, width):
        end = min(begin + width, columns)
        errors = torch.zeros_like(solved[:, begin:end])
        for column in range(begin, end):
            if (column - begin) % step == 0:
                part = slice(column, min(column + step, end))
                score = (solved[:, part] / upper.diagonal()[part]).square()
                keep = rule.keep(score.masked_fill(dead[part], 0.0), start=column)
                first = column
            error = solved[:, column].masked_fill(keep[:, column - first], 0.0) / upper[column, column]
            solved[:, column].masked_fill_(~keep[:, column - first], 0.0)
            solved[:, column + 1 : end].addr_(error, upper[column, column + 1 : end], alpha=-1)
            errors[:, column - begin] = error
        solved[:, end:].addmm_(errors, upper[begin:end, end:], alpha=-1)
    return solved


def _inverse_factor(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return U [in in] with U^T U the inverse of the damped gram matrix, and which inputs were always 0."""
    dead = gram.diagonal() == 0
    hessian = gram + torch.diag(dead.float())
    hessian.diagonal().add_(DAMPING * hessian.diagonal().mean())
    try:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
        return torch.linalg.cholesky(inverse, upper=True), dead
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        raise PruningError(
            "the gram matrix of its inputs cannot be inverted: calibrate with more tokens, or use method=wanda"
        ) from None
