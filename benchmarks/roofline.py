"""Rooflines: the least time that decoding and pruning can take, from bytes, operations and what a device can move."""

from __future__ import annotations

from typing import NamedTuple

from lm_eval_pruned.pruning.model.flops import Work


class Ceilings(NamedTuple):
    """What a device does in a second: bytes read or written, operations in the model's dtype and in float32."""

    bandwidth: float
    flops: float
    fp32_flops: float


class Shape(NamedTuple):
    """What a decoding step reads: bytes of all weights but the embedding, and of keys and values of one token."""

    weight_bytes: int
    token_bytes: int


# Dense rates from the vendors' data sheets: bytes, bfloat16 and float32 operations a second.
DATA_SHEETS = {
    "RTX 4090, 24 GB": Ceilings(1.01e12, 1.65e14, 8.3e13),
    "L40S, 48 GB": Ceilings(0.86e12, 3.62e14, 9.2e13),
    "A100, 80 GB": Ceilings(2.04e12, 3.12e14, 1.95e13),
    "H100 SXM, 80 GB": Ceilings(3.35e12, 9.89e14, 6.7e13),
    "H200 SXM, 141 GB": Ceilings(4.80e12, 9.89e14, 6.7e13),
}


def step_bytes(shape: Shape, rows: int, width: int) -> int:
    """Return the bytes that a decoding step has to read: weights once, keys and values of all rows once.

    Example:
        >>> step_bytes(Shape(weight_bytes=100, token_bytes=2), rows=3, width=10)
        160
    """
    return shape.weight_bytes + rows * width * shape.token_bytes


def step_seconds(shape: Shape, rows: int, width: int, itemsize: int, ceilings: Ceilings) -> float:
    """Return the least time of a decoding step: that of its bytes or that of its products, whichever is longer.

    Example:
        >>> step_seconds(Shape(100, 2), rows=3, width=10, itemsize=2, ceilings=Ceilings(10.0, 1e9, 1.0))
        16.0
    """
    flops = 2 * rows * shape.weight_bytes / itemsize
    return max(step_bytes(shape, rows, width) / ceilings.bandwidth, flops / ceilings.flops)


def tokens_per_second(shape: Shape, rows: int, width: int, itemsize: int, ceilings: Ceilings) -> float:
    """Return the most tokens a second for all rows together."""
    return rows / step_seconds(shape, rows, width, itemsize, ceilings)


def pruning_seconds(work: Work, weight_bytes: int, ceilings: Ceilings) -> float:
    """Return the least time of pruning: products at their rates, after every weight was read and before it is written.

    Ranking, elimination and everything elementwise are left out: a perfect program hides them.

    Example:
        >>> pruning_seconds(Work(matmul_flops=20.0, fp32_matmul_flops=4.0), 30, Ceilings(60.0, 10.0, 4.0))
        4.0
    """
    moved = 2 * weight_bytes / ceilings.bandwidth
    return moved + work.matmul_flops / ceilings.flops + work.fp32_matmul_flops / ceilings.fp32_flops
