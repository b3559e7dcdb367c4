"""An estimate of what pruning takes, in bytes and operations, counted from the shapes of a model's matrices alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.influence import HELD_OUT
from lm_eval_pruned.pruning.mask import MaskRule
from lm_eval_pruned.pruning.methods import DropMethod, ScoreMethod, SolveMethod
from lm_eval_pruned.pruning.recipe import Recipe

# Ranking a score [float32] takes a copy and its indices [int64], later a cumulative sum [int64] and masks.
BYTES_TO_RANK = 20
# A solver keeps the Hessian, its inverse, a factor of each, and what LAPACK copies.
GRAMS_TO_SOLVE = 5
# Norms, rotary embeddings and gating keep half as much for the backward pass as the inputs and outputs of products.
KEPT_BESIDES = 1.5
# Logits and their gradient in float32, their log-softmax and its gradient.
LOGIT_BYTES = 16
# The backward pass of fused attention makes five products where the forward pass makes two.
ATTENTION_BACKWARD = 2.5


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


def planned_zeros(rule: MaskRule, rows: int, columns: int) -> int:
    """Return how many weights of a matrix [rows columns] a mask removes; with `every_tie`, at least so many.

    Raises:
        PruningError: the rows do not divide into groups of M.

    Example:
        >>> [planned_zeros(MaskRule(sparsity=0.5, compare=compare), 3, 5) for compare in ("row", "matrix")]
        [6, 7]
    """
    if rule.pattern is not None:
        kept, size = rule.pattern
        if columns % size:
            raise PruningError(f"its {columns} columns do not divide into groups of {size}: choose another pattern")
        return rows * columns // size * (size - kept)
    if rule.compare == "row":
        return rows * int(columns * rule.sparsity)
    return int(rows * columns * rule.sparsity) + rule.every_tie


def phases(recipe: Recipe, architecture: Architecture, windows: WindowShape) -> dict[str, Work]:
    """Return the work of the phases that a report times, `load` excepted."""
    blocks = architecture.blocks
    allocate = Work()
    if recipe.method is None:
        return dict.fromkeys(("calibrate", "allocate", "prune"), Work())
    if not isinstance(recipe.method, DropMethod) and recipe.scores is None:
        allocate = _signal_work(recipe, architecture, windows)
    scoped = [matrix for block in blocks for matrix in _scoped(block)]
    match recipe.method:
        case DropMethod():
            prune = Work()
            calibrate = total([_capture(blocks, windows), *(_forward(block, windows) for block in blocks[:-1])])
        case ScoreMethod():
            prune = Work(ranked=_weights(scoped))
            calibrate = _flow(recipe, blocks, windows) if recipe.method.needs_calibration else Work()
        case SolveMethod():
            prune = total(_solving(matrix) for matrix in scoped)
            calibrate = total([_flow(recipe, blocks, windows), *(_grams(block, windows) for block in blocks)])
    return {"calibrate": calibrate, "allocate": allocate, "prune": prune}


def memory(recipe: Recipe, architecture: Architecture, windows: WindowShape) -> dict[str, int]:
    """Return the bytes, by what holds them, of the phase that needs most; their sum is the peak."""
    weights = {"weights": architecture.weights * architecture.itemsize}
    first = {}
    if architecture.outside is not None:
        # The next part is read while one is at work.
        *_, last, largest = sorted([0, *(_weights(block.matrices) for block in architecture.blocks)])
        first = {"part": architecture.itemsize * (architecture.outside + largest)}
        weights = {"part": architecture.itemsize * (last + largest)}
    if recipe.method is None:
        return max(first, weights, key=_together)
    drops = isinstance(recipe.method, DropMethod)
    walking = {
        "hidden_states": windows.samples * windows.seqlen * architecture.hidden * architecture.itemsize,
        "block": max(_block_bytes(recipe, architecture, block, windows) for block in architecture.blocks),
        "masks": _mask_bytes(recipe, architecture),
    }
    if drops or recipe.scores is not None or recipe.allocation.signal != "influence":
        return max(first, weights | walking, key=_together)
    return weights | max(walking, _gradient_bytes(architecture, windows), key=_together)


def _together(parts: Mapping[str, int]) -> int:
    return sum(parts.values())


def _scoped(block: BlockShape) -> list[Matrix]:
    return [matrix for matrix in block.matrices if matrix.in_scope]


def _weights(matrices: Iterable[Matrix]) -> int:
    return sum(matrix.rows * matrix.columns for matrix in matrices)


def _inputs(matrices: Iterable[Matrix]) -> list[Matrix]:
    """Return one matrix for each distinct input."""
    return list({matrix.source: matrix for matrix in matrices}.values())


def _elements(matrices: Sequence[Matrix]) -> float:
    """Return the elements a token brings to products and takes from them."""
    outputs = sum(matrix.share * matrix.rows for matrix in matrices)
    return outputs + sum(matrix.share * matrix.columns for matrix in _inputs(matrices))


def _forward(block: BlockShape, windows: WindowShape, matrices: Sequence[Matrix] | None = None) -> Work:
    """Return the work of all windows in a block, or in the given matrices of it.

    Two operations a weight and token, and in causal attention 2 seqlen width a token.
    """
    used = block.matrices if matrices is None else matrices
    tokens = windows.samples * windows.seqlen
    flops = sum(2 * matrix.rows * matrix.columns * matrix.share for matrix in used)
    return Work(
        products=tokens * (flops + 2 * windows.seqlen * block.attention),
        elements=tokens * _elements(used),
    )


def _measuring(block: BlockShape, windows: WindowShape) -> Work:
    """Return the work of a pass that ends at the input of the last matrix in scope; among experts it goes on.

    Which matrix that is shows in the first window, which passes all.
    """
    places = [place for place, matrix in enumerate(block.matrices) if matrix.in_scope]
    if not places or any(matrix.share < 1 for matrix in _scoped(block)):
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
    return Work(precise=sum(2 * tokens * one.share * one.columns**2 for one in _inputs(_scoped(block))))


def _solving(matrix: Matrix) -> Work:
    """Two Cholesky factors and an inverse, 4/3 in^3, updates of all later columns, out in^2, and the columns."""
    rows, columns = matrix.rows, matrix.columns
    return Work(precise=4 / 3 * columns**3 + rows * columns**2, eliminated=rows * columns)


def _signal_work(recipe: Recipe, architecture: Architecture, windows: WindowShape) -> Work:
    blocks = architecture.blocks
    scoped = [matrix for block in blocks for matrix in _scoped(block)]
    match recipe.allocation.signal:
        case "none":
            return Work()
        case "outlier_ratio" | "median_score":
            return total([_dense_flow(blocks, windows), Work(ranked=_weights(scoped))])
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


def _block_bytes(recipe: Recipe, architecture: Architecture, block: BlockShape, windows: WindowShape) -> int:
    """Return what a block needs at a time: activations of a window, or what ranking or solving holds."""
    activations = _activation_bytes(architecture, block, windows)
    scoped = _scoped(block)
    if isinstance(recipe.method, DropMethod) or not scoped:
        return int(activations)
    # The median is one of all scores of a block.
    median = _weights(scoped) if recipe.allocation.signal == "median_score" else 0
    by_rows = isinstance(recipe.method, ScoreMethod) and recipe.method.by_rows and recipe.compare == "row"
    ranked = (1 if by_rows else BYTES_TO_RANK) * max(one.rows * one.columns for one in scoped)
    ranked = max(ranked, BYTES_TO_RANK * median)
    if not isinstance(recipe.method, SolveMethod):
        return int(max(activations, ranked))
    grams = sum(4 * one.columns**2 for one in _inputs(scoped))
    solved = max(4 * one.columns * (GRAMS_TO_SOLVE * one.columns + 3 * one.rows) for one in scoped)
    return int(max(grams + activations, grams + solved, ranked if median else 0))


def _activation_bytes(architecture: Architecture, block: BlockShape, windows: WindowShape) -> float:
    scores = architecture.whole_scores * windows.seqlen**2 * (architecture.itemsize + 4)
    return windows.seqlen * _elements(block.matrices) * architecture.itemsize + scores


def _mask_bytes(recipe: Recipe, architecture: Architecture) -> int:
    # Of a model that is read part by part masks go to the disk as they are made.
    if not isinstance(recipe.method, ScoreMethod) or architecture.outside is not None:
        return 0
    return sum(_weights(_scoped(block)) for block in architecture.blocks) // 8


def _gradient_bytes(architecture: Architecture, windows: WindowShape) -> dict[str, int]:
    """One gradient in float32 of all weights in scope, and what the backward pass of a window needs."""
    kept = sum(_activation_bytes(architecture, block, windows) for block in architecture.blocks)
    logits = windows.seqlen * architecture.vocabulary * LOGIT_BYTES
    return {
        "gradients": 4 * sum(_weights(_scoped(block)) for block in architecture.blocks),
        "activations": int(KEPT_BESIDES * kept + logits),
    }
