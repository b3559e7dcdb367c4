"""The spectral tail exponent of AlphaPruning: the power law in the upper tail of a weight matrix's eigenvalues."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan, nan

import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.progress import progress_bar
from lm_eval_pruned.pruning.allocations.signals.kinds import DenseModel, Needs, Signal, measure_matrix
from lm_eval_pruned.pruning.masks.large import row_slices
from lm_eval_pruned.pruning.model.decoder import Linear
from lm_eval_pruned.pruning.model.flops import Work
from lm_eval_pruned.pruning.model.shapes import Architecture, WindowShape

BINS = 100


def tail_exponent(weight: Float[Tensor, "out in"]) -> float:
    """Return the exponent of the power law that the eigenvalues of W^T W follow in their upper tail; NaN if all are 0.

    alpha = 1 + k / sum_{i=1}^{k} ln(lambda_{n-i+1} / lambda_{n-k}), the Hill estimator over the k eigenvalues above
    lambda_{n-k}, the first one in the fullest of 100 equal bins of log10 lambda.

    Example:
        >>> squares = torch.cat([torch.full((9,), 1.0), torch.tensor([torch.e**2])])
        >>> round(tail_exponent(torch.diag(squares.sqrt())), 4)
        5.5

    Raises:
        PruningError: a weight is infinite or NaN.

    Reference: Lu et al. 2024, arXiv 2410.10912; the peak as threshold is what it calls the Fix-finger method.
    Differs: the published code also searches the thresholds around the peak for the closest fit.
    """
    try:
        eigenvalues = squared_singular_values(weight)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        eigenvalues = weight.new_full((1,), torch.nan)
    if not eigenvalues.isfinite().all():
        raise PruningError(
            "a weight is infinite or not a number (NaN), so that it has no spectrum: check the checkpoint"
        )
    if not eigenvalues[-1]:
        return nan
    # Smaller ones are the rounding errors of sums in float64, and of weights in float32.
    precise = eigenvalues[eigenvalues > eigenvalues[-1] * torch.finfo(torch.float32).eps ** 2]
    logs = precise.log10().cpu()
    counts, edges = torch.histogram(logs, BINS)
    first = int((logs >= edges[counts.argmax()]).nonzero()[0])
    tail = precise[first:].log()
    excess = float((tail - tail[0]).sum())
    return 1 + (len(tail) - 1) / excess if excess > 0 else 1.0


def squared_singular_values(weight: Float[Tensor, "out in"]) -> Float[Tensor, " smaller"]:
    """Return the eigenvalues of W^T W or W W^T, whichever is smaller, in float64 and in ascending order.

    In float64 they are a hundred times as precise as the squares of singular values that are computed in float32, and
    on a GPU, where singular values are found by Jacobi rotations, they take minutes and not an hour for a large model.

    Example:
        >>> squared_singular_values(torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0]])).tolist()
        [4.0, 9.0]
    """
    tall = weight if weight.shape[0] >= weight.shape[1] else weight.T
    gram = torch.zeros(tall.shape[1], tall.shape[1], dtype=torch.float64, device=weight.device)
    for rows in row_slices(len(tall), tall.shape[1], weight.device):
        part = tall[rows].double()
        gram.addmm_(part.T, part)
    eigenvalues: Tensor = torch.linalg.eigvalsh(gram)
    return eigenvalues


@torch.no_grad()
def tail_exponents(dense: DenseModel, config: PruneConfig) -> Float[Tensor, "groups blocks"]:
    """Return the mean tail exponent of the matrices of each block; needs no calibration windows.

    Matrices of zeros (an expert that was pruned before) have none; a block of them has the mean of the others.

    Reference: Lu et al. 2024, arXiv 2410.10912.
    """
    del config
    exponents = dict(dense.measured)
    blocks = [[linear for group in dense.groups for linear in group.blocks[one.index]] for one in dense.decoder.blocks]
    count = sum(linear.name not in exponents for linears in blocks for linear in linears)
    if count:
        with progress_bar(count, desc="alphapruning", unit="matrix") as progress:
            for linears, _ in zip(blocks, dense.decoder.onload_blocks(), strict=True):
                for linear in linears:
                    if linear.name not in exponents:
                        exponents[linear.name] = measure_matrix(tail_exponent, linear)
                        progress.update()

    def mean(linears: Sequence[Linear]) -> float:
        found = [exponents[linear.name] for linear in linears]
        known = [exponent for exponent in found if not isnan(exponent)]
        return sum(known) / len(known) if known else nan if found else 0.0

    means = torch.tensor([[mean(linears) for linears in group.blocks] for group in dense.groups], dtype=torch.float64)
    others = means.nanmean(dim=1, keepdim=True).nan_to_num(1.0)
    return means.where(means.isfinite(), others)


def _work(architecture: Architecture, windows: WindowShape, config: PruneConfig) -> Work:
    del windows, config
    return Work(svd_flops=sum(one.rows * one.columns * min(one.rows, one.columns) for one in architecture.scoped))


TAIL_EXPONENT = Signal(
    name="tail_exponent",
    needs=Needs.WEIGHTS,
    measure=tail_exponents,
    work=_work,
    description="the spectra of the weights of each block",
    of_matrix=tail_exponent,
)
