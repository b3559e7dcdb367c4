"""Work: the operations that pruning takes, by kind, counted from shapes alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lm_eval_pruned.pruning.allocations.signals.influence import HELD_OUT
from lm_eval_pruned.pruning.methods import DropMethod, ScoreMethod, SolveMethod
from lm_eval_pruned.pruning.model.shapes import (
    Architecture,
    BlockShape,
    Matrix,
    WindowShape,
    count_weights,
    distinct_inputs,
    elements,
)
from lm_eval_pruned.pruning.recipe import Recipe

# The backward pass of fused attention makes five products where the forward pass makes two.
ATTENTION_BACKWARD = 2.5


class Work(NamedTuple):
    """Operations of each kind; as a rate, those of one second.

    Floating-point operations of products in the model's dtype and in float32, elements that pass between products,
    weights ranked, weights eliminated by a solver, and operations of singular value decompositions.
    """

    products: float = 0.0
    precise: float = 0.0
    elements: float = 0.0
    ranked: float = 0.0
    eliminated: float = 0.0
    decomposed: float = 0.0


def seconds(work: Work, rates: Work) -> float:
    """Return how long `work` takes at `rates`.

    Example:
        >>> seconds(Work(products=6.0, ranked=1.0), Work(2.0, 1.0, 1.0, 4.0, 1.0, 1.0))
        3.25
    """
    return sum((count / rate for count, rate in zip(work, rates, strict=True) if count), start=0.0)


def total(works: Iterable[Work]) -> Work:
    """Add up, kind by kind.

    Example:
        >>> total([Work(products=1.0), Work(products=2.0, ranked=3.0)])[:4]
        (3.0, 0.0, 0.0, 3.0)
    """
    return Work(*(float(sum(counts)) for counts in zip(Work(), *works, strict=True)))


def phases(recipe: Recipe, architecture: Architecture, windows: WindowShape) -> dict[str, Work]:
    """Return the work of the phases that a report times, `load` excepted."""
    blocks = architecture.blocks
    allocate = Work()
    if recipe.method is None:
        return dict.fromkeys(("calibrate", "allocate", "prune"), Work())
    if not isinstance(recipe.method, DropMethod) and recipe.scores is None:
        allocate = _signal_work(recipe, architecture, windows)
    scoped = [matrix for block in blocks for matrix in block.scoped]
    match recipe.method:
        case DropMethod():
            prune = Work()
            calibrate = total([_capture(blocks, windows), *(_forward(block, windows) for block in blocks[:-1])])
        case ScoreMethod():
            prune = Work(ranked=count_weights(scoped))
            calibrate = _flow(recipe, blocks, windows) if recipe.method.needs_calibration else Work()
        case SolveMethod():
            prune = total(_solving(matrix) for matrix in scoped)
            calibrate = total([_flow(recipe, blocks, windows), *(_grams(block, windows) for block in blocks)])
    return {"calibrate": calibrate, "allocate": allocate, "prune": prune}


def _forward(block: BlockShape, windows: WindowShape, matrices: Sequence[Matrix] | None = None) -> Work:
    """Return the work of all windows in a block, or in the given matrices of it.

    Two operations a weight and token, and in causal attention 2 seqlen width a token.
    """
    used = block.matrices if matrices is None else matrices
    tokens = windows.samples * windows.seqlen
    flops = sum(2 * matrix.rows * matrix.columns * matrix.share for matrix in used)
    return Work(
        products=tokens * (flops + 2 * windows.seqlen * block.attention),
        elements=tokens * elements(used),
    )


def _measuring(block: BlockShape, windows: WindowShape) -> Work:
    """Return the work of a pass that ends at the input of the last matrix in scope; among experts it goes on.

    Which matrix that is shows in the first window, which passes all.
    """
    places = [place for place, matrix in enumerate(block.matrices) if matrix.in_scope]
    if not places or any(matrix.share < 1 for matrix in block.scoped):
        return _forward(block, windows) if places else Work()
    first, others = WindowShape(1, windows.seqlen), WindowShape(windows.samples - 1, windows.seqlen)
    return total([_forward(block, first), _forward(block, others, block.matrices[: places[-1]])])


def _capture(blocks: Sequence[BlockShape], windows: WindowShape) -> Work:
    """Return the work of the one forward pass, up to the last block, that records how each block is called."""
    one = WindowShape(1, windows.seqlen)
    return total(_forward(block, one) for block in blocks[:-1])


def _flow(recipe: Recipe, blocks: Sequence[BlockShape], windows: WindowShape) -> Work:
    """Return the work of measuring every block, pruned or dense activations flowing past."""
    if recipe.config.propagate == "dense":
        return _dense_flow(blocks, windows)
    passed = (_forward(block, windows) for block in blocks[:-1])
    return total([_capture(blocks, windows), *(_measuring(block, windows) for block in blocks), *passed])


def _dense_flow(blocks: Sequence[BlockShape], windows: WindowShape) -> Work:
    passed = (_forward(block, windows) for block in blocks[:-1])
    return total([_capture(blocks, windows), *passed, _measuring(blocks[-1], windows)])


def _grams(block: BlockShape, windows: WindowShape) -> Work:
    tokens = windows.samples * windows.seqlen
    return Work(precise=sum(2 * tokens * one.share * one.columns**2 for one in distinct_inputs(block.scoped)))


def _solving(matrix: Matrix) -> Work:
    """Two Cholesky factors and an inverse, 4/3 in^3, updates of all later columns, out in^2, and the columns."""
    rows, columns = matrix.rows, matrix.columns
    return Work(precise=4 / 3 * columns**3 + rows * columns**2, eliminated=rows * columns)


def _signal_work(recipe: Recipe, architecture: Architecture, windows: WindowShape) -> Work:
    blocks = architecture.blocks
    scoped = [matrix for block in blocks for matrix in block.scoped]
    match recipe.allocation.signal:
        case "none":
            return Work()
        case "outlier_ratio" | "median_score":
            return total([_dense_flow(blocks, windows), Work(ranked=count_weights(scoped))])
        case "tail_exponent":
            return Work(decomposed=sum(one.rows * one.columns * min(one.rows, one.columns) for one in scoped))
        case "influence":
            return _gradient_work(architecture, scoped, windows)


def _gradient_work(architecture: Architecture, scoped: Sequence[Matrix], windows: WindowShape) -> Work:
    """Forwards and backwards by the hidden states alone, and one product more with every gradient in scope."""
    tokens = windows.samples * windows.seqlen
    forward = total(_forward(block, windows) for block in architecture.blocks)
    attention = tokens * 2 * windows.seqlen * sum(block.attention for block in architecture.blocks)
    head = 2 * tokens * architecture.vocabulary * architecture.hidden
    gradients = 2 * tokens * sum(one.rows * one.columns * one.share for one in scoped)
    return Work(
        products=2 * (forward.products + head) + (ATTENTION_BACKWARD - 1) * attention + gradients * (1 - 1 / HELD_OUT),
        precise=gradients / HELD_OUT,
        elements=3 * forward.elements + 2 * tokens * architecture.vocabulary,
    )
