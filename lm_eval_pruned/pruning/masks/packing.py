"""Packed masks: one bit per weight on disk, applied so that the remaining weights stay bit for bit as they were."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from lm_eval_pruned.errors import DataError

# Weights counted at a time: few enough to stay in the cache of a core between two operations.
SLICE_WEIGHTS = 1 << 18
# On a GPU, whose kernel makes a mask of a byte for each weight.
SLICE_WEIGHTS_ON_GPU = 1 << 24

INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def pack(keep: Bool[Tensor, "*shape"]) -> UInt8[Tensor, " bytes"]:
    """Pack a mask of any shape, on any device, eight weights per byte; the first is the highest bit.

    Example:
        >>> import torch
        >>> bin(pack(torch.tensor([[True, True, False], [False, True, False]])).item())
        '0b11001000'
    """
    if keep.device.type == "cpu":
        return torch.from_numpy(np.packbits(keep.numpy(), axis=None))
    # An eighth of the bytes to copy to the host.
    bits = torch.nn.functional.pad(keep.flatten(), (0, -keep.numel() % 8)).view(torch.uint8).view(-1, 8)
    return (bits << _shifts(keep.device)).sum(dim=-1, dtype=torch.uint8).cpu()


def unpack(packed: UInt8[Tensor, " bytes"], shape: Sequence[int]) -> Bool[Tensor, "*shape"]:
    """Return the mask of the given shape, on the device of `packed`; the inverse of `pack`.

    Raises:
        DataError: `packed` holds another number of bytes than a mask of this shape needs.
    """
    weights = prod(shape)
    if len(packed) != -(-weights // 8):
        raise DataError(f"a packed mask of {len(packed)} bytes is not one of {weights} weights, shape {tuple(shape)}")
    if packed.device.type == "cpu":
        bits = torch.from_numpy(np.unpackbits(packed.numpy(), count=weights)).view(torch.bool)
    else:
        bits = ((packed[:, None] >> _shifts(packed.device)) & 1).flatten()[:weights].bool()
    return bits.reshape(tuple(shape))


def zero_in_place(weight: Float[Tensor, "*shape"], packed: UInt8[Tensor, " bytes"]) -> None:
    """Set the weights that a packed mask removes to +0, in place; `weight` may be a strided view.

    Raises:
        DataError: the mask has another shape.

    Example:
        >>> import torch
        >>> weight = torch.tensor([-1.0, 2.0, float("nan")])
        >>> zero_in_place(weight, pack(torch.tensor([False, True, False])))
        >>> weight.tolist()
        [0.0, 2.0, 0.0]
    """
    bits = _bits(weight.detach())
    _multiply(bits, unpack(packed.to(weight.device), weight.shape), out=bits)


def zeroed_copy(weight: Float[Tensor, "*shape"], packed: UInt8[Tensor, " bytes"]) -> Float[Tensor, "*shape"]:
    """Return a copy of `weight` in which the weights that a packed mask removes are +0.

    For weights mapped from a file, copying is four times as fast as changing them in place.

    Raises:
        DataError: the mask has another shape.
    """
    bits = _bits(weight.detach())
    out = torch.empty_like(bits)
    _multiply(bits, unpack(packed.to(weight.device), weight.shape), out=out)
    return out.view(weight.dtype)


def apply_mask(weight: Float[Tensor, "*shape"], keep: Bool[Tensor, "*shape"]) -> None:
    """Set the weights that a mask does not keep to +0, in place; `weight` may be a strided view."""
    bits = _bits(weight.detach())
    _multiply(bits, keep, out=bits)


def count_zeros_each(weights: Sequence[Tensor]) -> list[int]:
    """Count the zeros of several weights; the host waits once for each GPU.

    Example:
        >>> count_zeros_each([torch.tensor([0.0, -0.0]), torch.tensor([[1.0]])])
        [2, 0]
    """
    counts = [0] * len(weights)
    for device in {weight.device for weight in weights}:
        here = [index for index, weight in enumerate(weights) if weight.device == device]
        if device.type == "cpu":
            found = [count_zeros(weights[index]) for index in here]
        else:
            nonzero: list[int] = torch.stack([_nonzero(weights[index]) for index in here]).tolist()
            found = [weights[index].numel() - count for index, count in zip(here, nonzero, strict=True)]
        for index, count in zip(here, found, strict=True):
            counts[index] = count
    return counts


def count_zeros(weight: Tensor) -> int:
    """Count weights that are +0 or -0; on a CPU by their bits, which is twenty times as fast as `count_nonzero`."""
    if weight.device.type != "cpu" or not weight.is_contiguous():
        return weight.numel() - int(_nonzero(weight))
    bits = _bits(weight.detach()).reshape(-1).numpy()
    slices = (bits[start : start + SLICE_WEIGHTS] for start in range(0, len(bits), SLICE_WEIGHTS))
    # The left shift drops the sign bit.
    return len(bits) - sum(int(np.count_nonzero(part << 1)) for part in slices)


def _nonzero(weight: Tensor) -> Tensor:
    """Count weights other than 0, as a tensor on their device; a mask is made of a slice of rows at a time."""
    if not weight.ndim:
        return weight.detach().count_nonzero()
    step = max(1, SLICE_WEIGHTS_ON_GPU // max(1, weight[:1].numel()))
    parts = (weight.detach()[start : start + step] for start in range(0, max(1, len(weight)), step))
    return torch.stack([part.count_nonzero() for part in parts]).sum()


def _multiply(bits: Tensor, keep: Tensor, *, out: Tensor) -> None:
    """Multiply integers by a mask; on a CPU numpy is nine times as fast as PyTorch, which converts the mask first."""
    if bits.device.type == "cpu":
        np.multiply(bits.numpy(), keep.numpy(), out=out.numpy())
    else:
        torch.mul(bits, keep, out=out)


def _shifts(device: torch.device) -> Tensor:
    """Return how far each of eight bits is shifted within its byte."""
    return torch.arange(7, -1, -1, dtype=torch.uint8, device=device)


def _bits(weight: Tensor) -> Tensor:
    """View floats as integers: as floats, 0 x -1 is -0 and 0 x inf is NaN, and masked_fill_ is 20 times slower."""
    return weight.view(INTEGERS[weight.element_size()])
