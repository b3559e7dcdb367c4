"""Matrix products with sums in float32, of inputs in any floating dtype."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

HALVES = (torch.float16, torch.bfloat16)


def float32_product(
    left: Float[Tensor, "rows inner"], right: Float[Tensor, "inner columns"], *, added_to: Tensor | None = None
) -> Float[Tensor, "rows columns"]:
    """Return left @ right in float32, added to a float32 matrix in place if one is given.

    Products of two numbers of 16 bits are exact in float32. On CUDA, tensor cores make them from the inputs as they
    are and add them in float32; elsewhere the inputs are converted first. The two add in different orders.

    Args:
        left: a matrix.
        right: a matrix of the same dtype.
        added_to: the matrix [rows columns] that the product is added to.

    Example:
        >>> float32_product(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0], [2.0]])).tolist()
        [[11.0]]
    """
    if has_float32_sums(left, right):
        if added_to is None:
            return torch.mm(left, right, out_dtype=torch.float32)
        return torch.addmm(added_to, left, right, out_dtype=torch.float32, out=added_to)
    left, right = left.float(), right.float()
    return left @ right if added_to is None else added_to.addmm_(left, right)


def has_float32_sums(left: Tensor, right: Tensor) -> bool:
    """Return whether the device multiplies these two as they are and adds in float32: CUDA since PyTorch 2.8."""
    is_half = left.dtype == right.dtype and left.dtype in HALVES
    return is_half and left.device.type == "cuda" and hasattr(torch.ops.aten.addmm, "dtype_out")
