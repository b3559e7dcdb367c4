"""Operation counts of forward and backward passes, by kind of operation, computed from shapes alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from lm_eval_pruned.pruning.model.shapes import SHORT_WINDOW, Architecture, BlockShape, Matrix, WindowShape, elements

# The backward pass of fused attention makes five products where the forward pass makes two.
ATTENTION_BACKWARD = 2.5


class Work(NamedTuple):
    """Number of operations of each kind; as a throughput, the number per second.

    Attributes:
        matmul_flops: floating-point operations of matrix products in the dtype of the model.
        fp32_matmul_flops: floating-point operations of matrix products in float32.
        elementwise: elements that pass between products.
        sorted: weights ranked.
        solved: weights eliminated one column at a time by a solver.
        svd_flops: operations that find singular values, rows x columns x the smaller of the two.
    """

    matmul_flops: float = 0.0
    fp32_matmul_flops: float = 0.0
    elementwise: float = 0.0
    sorted: float = 0.0
    solved: float = 0.0
    svd_flops: float = 0.0


def seconds(work: Work, throughput: Work) -> float:
    """Return how long `work` takes at a throughput in operations per second.

    Example:
        >>> seconds(Work(matmul_flops=6.0, sorted=1.0), Work(2.0, 1.0, 1.0, 4.0, 1.0, 1.0))
        3.25
    """
    return sum((count / rate for count, rate in zip(work, throughput, strict=True) if count), start=0.0)


def total(works: Iterable[Work]) -> Work:
    """Add up, kind by kind.

    Example:
        >>> total([Work(matmul_flops=1.0), Work(matmul_flops=2.0, sorted=3.0)])[:4]
        (3.0, 0.0, 0.0, 3.0)
    """
    return Work(*(float(sum(counts)) for counts in zip(Work(), *works, strict=True)))


def forward(block: BlockShape, windows: WindowShape, matrices: Sequence[Matrix] | None = None) -> Work:
    """Count the forward pass of all windows through a block, or through the given matrices of it.

    Two operations per weight and token, and in causal attention 2 seqlen width per token.
    """
    used = block.matrices if matrices is None else matrices
    tokens = windows.samples * windows.seqlen
    flops = sum(2 * matrix.rows * matrix.columns * matrix.share for matrix in used)
    return Work(
        matmul_flops=tokens * (flops + 2 * windows.seqlen * block.attention),
        elementwise=tokens * elements(used),
    )


def capture_pass(blocks: Sequence[BlockShape], windows: WindowShape, *, verified: bool = False) -> Work:
    """Count the passes of one window that record and verify the arguments which blocks are called with.

    The first block runs once to show what it returns, all blocks run once, and then twice one by one, with a short
    window beside. Where calls are `verified` already, the first block is enough.
    """
    one, short = WindowShape(1, windows.seqlen), WindowShape(1, min(SHORT_WINDOW, windows.seqlen))
    if verified:
        return forward(blocks[0], one)
    whole = (forward(block, one) for block in (blocks[0], *blocks, *blocks, *blocks))
    return total([*whole, *(forward(block, short) for block in (*blocks, *blocks))])


def calibration_pass(block: BlockShape, windows: WindowShape) -> Work:
    """Count the pass of all windows through a block that ends at the input of the last matrix in scope.

    Which matrix that is becomes known in the first window, which runs to the end. With experts every window does.
    """
    indices = [index for index, matrix in enumerate(block.matrices) if matrix.in_scope]
    if not indices or any(matrix.share < 1 for matrix in block.scoped):
        return forward(block, windows) if indices else Work()
    first, others = WindowShape(1, windows.seqlen), WindowShape(windows.samples - 1, windows.seqlen)
    return total([forward(block, first), forward(block, others, block.matrices[: indices[-1]])])


def dense_calibration(blocks: Sequence[BlockShape], windows: WindowShape, *, verified: bool = False) -> Work:
    """Count a calibration in which dense activations are propagated from block to block."""
    passed = (forward(block, windows) for block in blocks[:-1])
    return total([capture_pass(blocks, windows, verified=verified), *passed, calibration_pass(blocks[-1], windows)])


def gradient_dot_products(
    architecture: Architecture, windows: WindowShape, held_out: int, kept: Collection[int]
) -> Work:
    """Count LayerIF's passes: forward, again block by block, backward, and one product more per gradient in scope.

    Two short windows are run besides, block by block and through the whole model, to see that gradients are the same.

    Args:
        architecture: shapes of the model.
        windows: shape of the calibration set.
        held_out: number of windows whose gradients are accumulated in float32.
        kept: blocks whose inputs are kept of the held-out windows; those of all others are computed again.
    """
    blocks, (samples, seqlen) = architecture.blocks, windows
    short = WindowShape(2, min(SHORT_WINDOW, seqlen))
    filled = [blocks[index - 1] for index in range(len(blocks) - 1) if index not in kept]
    gradients = 2 * seqlen * sum(one.rows * one.columns * one.share for one in architecture.scoped)
    passes = (
        _differentiated(architecture, windows, [*blocks, *blocks[:-1]]),
        *(forward(block, WindowShape(held_out, seqlen)) for block in filled),
        _differentiated(architecture, short, [*blocks, *blocks, *blocks[:-1]], times=2),
        *(forward(block, short) for block in filled),
    )
    return total([*passes, Work(matmul_flops=gradients * (samples - held_out), fp32_matmul_flops=gradients * held_out)])


def _differentiated(
    architecture: Architecture, windows: WindowShape, run: Sequence[BlockShape], times: int = 1
) -> Work:
    """Count passes forward through the blocks `run`, and `times` forward through the head and backward by all."""
    tokens, blocks = windows.samples * windows.seqlen, architecture.blocks
    passes = total(forward(block, windows) for block in blocks)
    attention = tokens * 2 * windows.seqlen * sum(block.attention for block in blocks)
    head = 2 * tokens * architecture.vocabulary * architecture.hidden
    backward = Work(
        matmul_flops=passes.matmul_flops + 2 * head + (ATTENTION_BACKWARD - 1) * attention,
        elementwise=2 * passes.elementwise + 2 * tokens * architecture.vocabulary,
    )
    return total([*(forward(block, windows) for block in run), *[backward] * times])
