"""Shapes: what of a model and its calibration set decides the work and the memory that pruning takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Matrix(NamedTuple):
    """A weight matrix [rows columns] of a block.

    Matrices of one `source` are fed the same input, and `share` is the fraction of the tokens that come by.
    """

    rows: int
    columns: int
    source: str
    share: float = 1.0
    in_scope: bool = True


class BlockShape(NamedTuple):
    """The matrices of a block in their order, and the width of its attention: heads times the size of a head."""

    matrices: tuple[Matrix, ...]
    attention: int

    @property
    def scoped(self) -> list[Matrix]:
        """The matrices that are pruned."""
        return [matrix for matrix in self.matrices if matrix.in_scope]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What decides the work besides the recipe: blocks, widths, and bytes a weight.

    `weights` counts the whole model. Where it is read part by part, `outside` counts the largest part outside of the
    blocks, else it is None. `whole_scores` are the heads whose attention scores [seqlen seqlen] are held as a whole: 0
    where attention is fused.
    """

    blocks: tuple[BlockShape, ...]
    hidden: int
    vocabulary: int
    weights: int
    itemsize: int
    whole_scores: int = 0
    outside: int | None = None


class WindowShape(NamedTuple):
    """The size of the calibration set: `samples` windows of `seqlen` tokens; 0 where none is needed."""

    samples: int
    seqlen: int


def count_weights(matrices: Iterable[Matrix]) -> int:
    """Return how many weights the matrices have together."""
    return sum(matrix.rows * matrix.columns for matrix in matrices)


def distinct_inputs(matrices: Iterable[Matrix]) -> list[Matrix]:
    """Return one matrix for each distinct input."""
    return list({matrix.source: matrix for matrix in matrices}.values())


def elements(matrices: Sequence[Matrix]) -> float:
    """Return the elements a token brings to products and takes from them."""
    outputs = sum(matrix.share * matrix.rows for matrix in matrices)
    return outputs + sum(matrix.share * matrix.columns for matrix in distinct_inputs(matrices))
