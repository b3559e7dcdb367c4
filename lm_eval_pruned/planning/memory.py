"""Peak memory of pruning, by what holds it, computed from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping

from lm_eval_pruned.divergence.traces import BATCH_TOKENS
from lm_eval_pruned.pruning.allocations.signals.influence import held_out_windows
from lm_eval_pruned.pruning.calibration.backward import kept_inputs, segment_length
from lm_eval_pruned.pruning.model.shapes import (
    Architecture,
    BlockShape,
    WindowShape,
    count_weights,
    distinct_inputs,
    elements,
)
from lm_eval_pruned.pruning.recipe import Recipe

# Ranking a score [float32] needs a copy and its indices [int64], later a cumulative sum [int64] and masks.
BYTES_TO_RANK = 20
# A solver holds the Hessian, its inverse, a factor of each, and a copy in LAPACK.
GRAMS_TO_SOLVE = 5
# Norms, rotary embeddings and gating save half as much for the backward pass as the inputs and outputs of products.
SAVED_FOR_BACKWARD = 1.5
# Logits and their gradient in float32, their log-softmax and its gradient.
LOGIT_BYTES = 16


def peak_memory_bytes(recipe: Recipe, architecture: Architecture, windows: WindowShape) -> dict[str, int]:
    """Return the bytes of the phase that needs most, by what holds them; their sum is the peak."""
    weights = {"weights": architecture.weights * architecture.itemsize}
    opening = {}
    if architecture.outside is not None:
        # The next module is read while one is being pruned.
        *_, second, largest = sorted([0, *(count_weights(block.matrices) for block in architecture.blocks)])
        opening = {"part": architecture.itemsize * (architecture.outside + largest)}
        weights = {"part": architecture.itemsize * (second + largest)}
    if recipe.method is None:
        return max(opening, weights, key=_sum)
    sequential = {
        "hidden_states": windows.samples * windows.seqlen * architecture.hidden * architecture.itemsize,
        "block": max(_block_bytes(recipe, architecture, block, windows) for block in architecture.blocks),
        "masks": _mask_bytes(recipe, architecture),
    }
    if recipe.searches_blocks or recipe.searches_sparsities:
        return weights | max(sequential, _search_bytes(recipe, architecture, windows), key=_sum)
    if not recipe.needs_gradients:
        return max(opening, weights | sequential, key=_sum)
    return weights | max(sequential, _gradient_bytes(architecture, windows), key=_sum)


def _sum(sizes: Mapping[str, int]) -> int:
    return sum(sizes.values())


def _block_bytes(recipe: Recipe, architecture: Architecture, block: BlockShape, windows: WindowShape) -> int:
    """Return the bytes that one block needs: activations of a window, or what ranking or solving holds."""
    activations = _activation_bytes(architecture, block, windows)
    scoped = block.scoped
    method = recipe.method
    if method is None or method.reshapes or not scoped:
        return int(activations)
    scores_at_once = count_weights(scoped) if recipe.allocation.signal.scores_whole_blocks else 0
    by_rows = method.ranks and method.by_rows and recipe.compare == "row"
    ranked = (1 if by_rows else BYTES_TO_RANK) * max(one.rows * one.columns for one in scoped)
    ranked = max(ranked, BYTES_TO_RANK * scores_at_once)
    if not method.solves:
        return int(max(activations, ranked))
    grams = sum(4 * one.columns**2 for one in distinct_inputs(scoped))
    solved = max(4 * one.columns * (GRAMS_TO_SOLVE * one.columns + 3 * one.rows) for one in scoped)
    return int(max(grams + activations, grams + solved, ranked if scores_at_once else 0))


def _activation_bytes(architecture: Architecture, block: BlockShape, windows: WindowShape) -> float:
    scores = architecture.whole_scores * windows.seqlen**2 * (architecture.itemsize + 4)
    return windows.seqlen * elements(block.matrices) * architecture.itemsize + scores


def _mask_bytes(recipe: Recipe, architecture: Architecture) -> int:
    # With offloaded weights, masks are spilled to disk as they are made.
    if recipe.method is None or not recipe.method.ranks or architecture.outside is not None:
        return 0
    return sum(count_weights(block.scoped) for block in architecture.blocks) // 8


def _search_bytes(recipe: Recipe, architecture: Architecture, windows: WindowShape) -> dict[str, int]:
    """Return what candidates need besides the weights: a prefill, and a copy of the weights that they prune."""
    tokens = max(BATCH_TOKENS, windows.seqlen)
    widest = max(elements(block.matrices) for block in architecture.blocks)
    return {
        "copy": architecture.itemsize * count_weights(architecture.scoped) if recipe.searches_sparsities else 0,
        "activations": int(architecture.itemsize * tokens * widest),
    }


def _gradient_bytes(architecture: Architecture, windows: WindowShape) -> dict[str, int]:
    """Return what gradients need besides the weights, in the phase that needs most.

    These are the forward passes of the held-out windows, the backward passes of their first blocks, when the summed
    gradients of all others are known, and a pass of another window. Sums of the block at work are in float32, with a
    product to be added, those of the others in the dtype of the weights. The last block and the logits go backward
    without being dropped, every other block alone.
    """
    blocks, samples = architecture.blocks, held_out_windows(windows.samples)
    sizes = [count_weights(block.scoped) for block in blocks]
    at_work = 4 * (max(sizes) + max(one.rows * one.columns for one in architecture.scoped))
    state = windows.seqlen * architecture.hidden * architecture.itemsize
    saved = [SAVED_FOR_BACKWARD * _activation_bytes(architecture, block, windows) for block in blocks]
    end = int(saved[-1] + windows.seqlen * architecture.vocabulary * LOGIT_BYTES)
    kept = len(kept_inputs(len(blocks), samples))
    # The inputs of the blocks of a segment, and the gradient after it.
    segment = segment_length(len(blocks), samples) + 1
    phases = (
        {"gradients": at_work, "inputs": (kept * samples + 1) * state, "activations": end},
        {
            "gradients": at_work + architecture.itemsize * (sum(sizes) - max(sizes)),
            "inputs": min(segment, len(blocks)) * samples * state,
            "activations": int(max(saved)),
        },
        {
            "gradients": architecture.itemsize * sum(sizes),
            "inputs": len(blocks) * state,
            "activations": end,
        },
    )
    return max(phases, key=_sum)
