"""Spectra: how heavy the tail of a matrix's eigenvalues is, as the exponent of a power law."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

BINS = 100


def tail_exponent(weight: Float[Tensor, "out in"]) -> float:
    """Return the exponent of the power law that the eigenvalues of W^T W follow in their upper tail.

    alpha = 1 + k / sum_{i=1}^{k} ln(lambda_{n-i+1} / lambda_{n-k}), the Hill estimator over the k eigenvalues above
    lambda_{n-k}, the first one in the fullest of 100 equal bins of log10 lambda.

    Example:
        >>> squares = torch.cat([torch.full((9,), 1.0), torch.tensor([torch.e**2])])
        >>> round(tail_exponent(torch.diag(squares.sqrt())), 4)
        5.5

    Reference: Lu et al. 2024, arXiv 2410.10912; the peak as threshold is what it calls the Fix-finger method.
    Differs: the published code goes on to search the thresholds around the peak for the closest fit.
    """
    eigenvalues = torch.linalg.svdvals(weight.float()).double().square().sort().values
    # Below the precision of float32 singular values there is only rounding.
    precise = eigenvalues[eigenvalues > eigenvalues[-1] * torch.finfo(torch.float32).eps ** 2]
    logs = precise.log10().cpu()
    counts, edges = torch.histogram(logs, BINS)
    first = int((logs >= edges[counts.argmax()]).nonzero()[0])
    tail = precise[first:].log()
    excess = float((tail - tail[0]).sum())
    return 1 + (len(tail) - 1) / excess if excess > 0 else 1.0
