"""Shapes of a model and its calibration set, from which the cost of pruning is computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Tokens of the window that is run beside another one when calls of blocks are verified.
SHORT_WINDOW = 8


class Matrix(NamedTuple):
    """A weight matrix [rows columns] of a block.

    Matrices with the same `source` share their input; `share` is the fraction of the tokens that reach the matrix.
    """

    rows: int
    columns: int
    source: str
    share: float = 1.0
    in_scope: bool = True


class BlockShape(NamedTuple):
    """The matrices of a block in order, and the width of its attention: number of heads times head size."""

    matrices: tuple[Matrix, ...]
    attention: int

    @property
    def scoped(self) -> list[Matrix]:
        """The matrices that are pruned."""
        return [matrix for matrix in self.matrices if matrix.in_scope]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The sizes of a model that determine the cost of pruning it.

    Attributes:
        blocks: shapes of the decoder blocks.
        hidden: width of the hidden states.
        vocabulary: number of token ids.
        weights: number of weights of the whole model.
        itemsize: bytes per weight.
        whole_scores: number of heads whose attention scores [seqlen seqlen] are materialised; 0 with fused attention.
        outside: weights of the largest module outside the blocks where the model is pruned block-wise from disk, None
            where all weights are in memory.
    """

    blocks: tuple[BlockShape, ...]
    hidden: int
    vocabulary: int
    weights: int
    itemsize: int
    whole_scores: int = 0
    outside: int | None = None

    @property
    def scoped(self) -> list[Matrix]:
        """The matrices of all blocks that are pruned."""
        return [matrix for block in self.blocks for matrix in block.scoped]


class WindowShape(NamedTuple):
    """The size of the calibration set: `samples` windows of `seqlen` tokens; zeros where none is needed."""

    samples: int
    seqlen: int


def count_weights(matrices: Iterable[Matrix]) -> int:
    """Return the number of weights of the matrices together."""
    return sum(matrix.rows * matrix.columns for matrix in matrices)


def distinct_inputs(matrices: Iterable[Matrix]) -> list[Matrix]:
    """Return one matrix for each distinct input."""
    return list({matrix.source: matrix for matrix in matrices}.values())


def elements(matrices: Sequence[Matrix]) -> float:
    """Return the number of elements per token that go into the products and come out of them."""
    outputs = sum((matrix.share * matrix.rows for matrix in matrices), start=0.0)
    return outputs + sum(matrix.share * matrix.columns for matrix in distinct_inputs(matrices))
