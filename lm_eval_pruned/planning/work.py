"""Operation counts of the phases of pruning: calibrate, allocate, prune."""

from __future__ import annotations

from collections.abc import Sequence

from lm_eval_pruned.pruning.allocations.signals.kinds import Needs
from lm_eval_pruned.pruning.damage import trials
from lm_eval_pruned.pruning.methods import (
    DropMethod,
    ExpertMethod,
    PositionMethod,
    ScoreMethod,
    SearchMethod,
    SolveMethod,
    WidthMethod,
)
from lm_eval_pruned.pruning.model.flops import (
    Work,
    calibration_pass,
    capture_pass,
    dense_calibration,
    forward,
    total,
)
from lm_eval_pruned.pruning.model.shapes import (
    SHORT_WINDOW,
    Architecture,
    BlockShape,
    Matrix,
    WindowShape,
    count_weights,
    distinct_inputs,
)
from lm_eval_pruned.pruning.model.stand_in import TOKENS
from lm_eval_pruned.pruning.recipe import Recipe, count_to_drop


def phases(recipe: Recipe, architecture: Architecture, windows: WindowShape) -> dict[str, Work]:
    """Count the operations of the phases that a report times, except `load`."""
    blocks = architecture.blocks
    match recipe.method:
        case None:
            return dict.fromkeys(("calibrate", "allocate", "prune"), Work())
        case DropMethod() | PositionMethod() | SearchMethod() as method:
            # The model is run on a few tokens with the blocks bypassed, and twice without them.
            tried, left = WindowShape(1, TOKENS), blocks[count_to_drop(recipe.config, len(blocks)) :]
            prune, calibrate = total(forward(block, tried) for block in (*blocks, *left, *left)), Work()
            if recipe.needs_calibration and isinstance(method, SearchMethod):
                calibrate = _search(recipe, architecture, windows)
            elif recipe.needs_calibration:
                visited = blocks if isinstance(method, DropMethod) and method.consecutive else blocks[:-1]
                calibrate = total([capture_pass(blocks, windows), *(forward(block, windows) for block in visited)])
        case WidthMethod():
            # The model is run on a few tokens before and after it is narrowed, and once more built anew.
            prune = total(forward(block, WindowShape(1, TOKENS)) for block in blocks * 3)
            calibrate = _calibration(recipe, blocks, windows)
        case ExpertMethod():
            # The model is run on a few tokens three times, and on the windows once, with the experts once more.
            prune = total(forward(block, WindowShape(1, TOKENS)) for block in blocks * 3)
            again = (forward(block, windows, [one for one in block.matrices if one.share < 1]) for block in blocks)
            calibrate = total([dense_calibration(blocks, windows), *again])
        case ScoreMethod() as method:
            prune = Work(sorted=count_weights(architecture.scoped))
            calibrate = _calibration(recipe, blocks, windows) if method.needs_calibration else Work()
        case SolveMethod():
            prune = total(_solution(matrix) for matrix in architecture.scoped)
            calibrate = total([_calibration(recipe, blocks, windows), *(_grams(block, windows) for block in blocks)])
    signal = recipe.allocation.signal
    allocate = signal.work(architecture, windows, recipe.config) if recipe.measures_signal else Work()
    return {"calibrate": calibrate, "allocate": allocate, "prune": prune}


def _calibration(recipe: Recipe, blocks: Sequence[BlockShape], windows: WindowShape) -> Work:
    """Count the operations of calibrating all blocks, with dense or pruned activations propagated."""
    # Calls of blocks were verified when the signal was measured.
    verified = recipe.measures_signal and recipe.allocation.signal.needs == Needs.ACTIVATIONS
    if recipe.config.propagate == "dense":
        return dense_calibration(blocks, windows, verified=verified)
    captured = capture_pass(blocks, windows, verified=verified)
    propagated = (forward(block, windows) for block in blocks[:-1])
    return total([captured, *(calibration_pass(block, windows) for block in blocks), *propagated])


def _search(recipe: Recipe, architecture: Architecture, windows: WindowShape) -> Work:
    """Count the passes of a greedy search: one of all windows for each set of blocks that is tried.

    With KL, dense states are computed once, and dense logits again for each set.
    """
    blocks = architecture.blocks
    tried = trials(len(blocks), count_to_drop(recipe.config, len(blocks)))
    kl = recipe.config.greedy_by == "kl"
    every = total(forward(block, windows) for block in blocks)
    # No token comes after the last one of a window. The model is run twice on a few tokens, to see that it divides.
    heads = tried * windows.samples * (windows.seqlen - 1) * (1 + kl)
    short = WindowShape(2, min(SHORT_WINDOW, windows.seqlen))
    head = Work(matmul_flops=2 * (heads + 2 * short.seqlen) * architecture.vocabulary * architecture.hidden)
    return total([*[every] * (tried + kl), head, *(forward(block, short) for block in blocks)])


def _grams(block: BlockShape, windows: WindowShape) -> Work:
    tokens = windows.samples * windows.seqlen
    return Work(fp32_matmul_flops=sum(2 * tokens * one.share * one.columns**2 for one in distinct_inputs(block.scoped)))


def _solution(matrix: Matrix) -> Work:
    """Count two Cholesky factors and an inverse, 4/3 in^3, updates of later columns, out in^2, and the columns."""
    rows, columns = matrix.rows, matrix.columns
    return Work(fp32_matmul_flops=4 / 3 * columns**3 + rows * columns**2, solved=rows * columns)
