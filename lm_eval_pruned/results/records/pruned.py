"""Pruning reports of runs: the sparsity that was reached, that of each block, and the fingerprint."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import NamedTuple


class BlockSparsity(NamedTuple):
    """Sparsities of a decoder block: targets of its attention and its MLP, and the achieved one of the whole block."""

    attn: float
    mlp: float
    achieved: float


class Pruned(NamedTuple):
    """Sparsity, counted from the weights, blocks, and fingerprint; None and empty where there is no report."""

    sparsity: float | None
    blocks: tuple[BlockSparsity, ...]
    fingerprint: str


def read_report(report: Mapping[str, object]) -> Pruned:
    """Read a pruning report, which may be empty."""
    return Pruned(
        sparsity=number(report.get("achieved_sparsity")),
        blocks=_blocks(report.get("blocks")),
        fingerprint=str(report.get("fingerprint") or ""),
    )


def number(value: object) -> float | None:
    """Return a number of a JSON file as float, None for anything else.

    Example:
        >>> number(3), number(True), number("3"), number(10**400)
        (3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # An integer may be too large for a float.
    return float(value) if abs(value) <= sys.float_info.max else None


def _blocks(given: object) -> tuple[BlockSparsity, ...]:
    """Return the blocks of a report, or () if one of them is malformed."""
    if not isinstance(given, list) or not all(isinstance(block, Mapping) for block in given):
        return ()
    values = [[number(block.get(name)) for name in BlockSparsity._fields] for block in given]
    blocks = [BlockSparsity(*(value for value in row if value is not None)) for row in values if None not in row]
    return tuple(blocks) if len(blocks) == len(given) else ()
