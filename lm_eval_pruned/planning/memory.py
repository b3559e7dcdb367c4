"""The footprint: the bytes that pruning needs at a time, by what holds them, counted from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping

from lm_eval_pruned.pruning.methods import DropMethod, ScoreMethod, SolveMethod
from lm_eval_pruned.pruning.model.shapes import (
    Architecture,
    BlockShape,
    WindowShape,
    count_weights,
    distinct_inputs,
    elements,
)
from lm_eval_pruned.pruning.recipe import Recipe

# Ranking a score [float32] takes a copy and its indices [int64], later a cumulative sum [int64] and masks.
BYTES_TO_RANK = 20
# A solver keeps the Hessian, its inverse, a factor of each, and what LAPACK copies.
GRAMS_TO_SOLVE = 5
# Norms, rotary embeddings and gating keep half as much for the backward pass as the inputs and outputs of products.
KEPT_BESIDES = 1.5
# Logits and their gradient in float32, their log-softmax and its gradient.
LOGIT_BYTES = 16


def footprint(recipe: Recipe, architecture: Architecture, windows: WindowShape) -> dict[str, int]:
    """Return the bytes, by what holds them, of the phase that needs most; their sum is the peak."""
    weights = {"weights": architecture.weights * architecture.itemsize}
    first = {}
    if architecture.outside is not None:
        # The next part is read while one is at work.
        *_, last, largest = sorted([0, *(count_weights(block.matrices) for block in architecture.blocks)])
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


def _block_bytes(recipe: Recipe, architecture: Architecture, block: BlockShape, windows: WindowShape) -> int:
    """Return what a block needs at a time: activations of a window, or what ranking or solving holds."""
    activations = _activation_bytes(architecture, block, windows)
    scoped = block.scoped
    if isinstance(recipe.method, DropMethod) or not scoped:
        return int(activations)
    # The median is one of all scores of a block.
    median = count_weights(scoped) if recipe.allocation.signal == "median_score" else 0
    by_rows = isinstance(recipe.method, ScoreMethod) and recipe.method.by_rows and recipe.compare == "row"
    ranked = (1 if by_rows else BYTES_TO_RANK) * max(one.rows * one.columns for one in scoped)
    ranked = max(ranked, BYTES_TO_RANK * median)
    if not isinstance(recipe.method, SolveMethod):
        return int(max(activations, ranked))
    grams = sum(4 * one.columns**2 for one in distinct_inputs(scoped))
    solved = max(4 * one.columns * (GRAMS_TO_SOLVE * one.columns + 3 * one.rows) for one in scoped)
    return int(max(grams + activations, grams + solved, ranked if median else 0))


def _activation_bytes(architecture: Architecture, block: BlockShape, windows: WindowShape) -> float:
    scores = architecture.whole_scores * windows.seqlen**2 * (architecture.itemsize + 4)
    return windows.seqlen * elements(block.matrices) * architecture.itemsize + scores


def _mask_bytes(recipe: Recipe, architecture: Architecture) -> int:
    # Of a model that is read part by part masks go to the disk as they are made.
    if not isinstance(recipe.method, ScoreMethod) or architecture.outside is not None:
        return 0
    return sum(count_weights(block.scoped) for block in architecture.blocks) // 8


def _gradient_bytes(architecture: Architecture, windows: WindowShape) -> dict[str, int]:
    """One gradient in float32 of all weights in scope, and what the backward pass of a window needs."""
    kept = sum(_activation_bytes(architecture, block, windows) for block in architecture.blocks)
    logits = windows.seqlen * architecture.vocabulary * LOGIT_BYTES
    return {
        "gradients": 4 * sum(count_weights(block.scoped) for block in architecture.blocks),
        "activations": int(KEPT_BESIDES * kept + logits),
    }
