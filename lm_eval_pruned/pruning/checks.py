"""Checks of a model before it is pruned, and of the zeros that it has afterwards."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import nn

from lm_eval_pruned.errors import DataError, PruningError
from lm_eval_pruned.pruning.artifacts.report import PruneReport
from lm_eval_pruned.pruning.artifacts.sink import zeros_of
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.model.decoder import Decoder
from lm_eval_pruned.pruning.model.residency import RESIDENT
from lm_eval_pruned.pruning.recipe import Recipe

logger = logging.getLogger(__name__)

# A trained weight is hardly ever exactly 0; a larger fraction of zeros means that the model was pruned before.
ZEROS_OF_A_DENSE_MODEL = 1e-3


def check_onloaded(decoder: Decoder) -> None:
    """Check that all weights of a resident model are in memory.

    Raises:
        PruningError: some were offloaded to disk by accelerate.
    """
    if decoder.residency is RESIDENT and any(parameter.is_meta for parameter in decoder.model.parameters()):
        raise PruningError(
            "a part of the model was left outside of memory by device_map, parallelize or max_memory: give it more or "
            "larger devices, or let `lm-eval-pruned prune`, which needs one block at a time, write a checkpoint first"
        )


def check_token_ids(model: nn.Module, windows: Windows) -> None:
    """Check that a model has an embedding for each token id of calibration windows.

    Raises:
        DataError: it lacks one, or there are no windows.
    """
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    known = getattr(embeddings, "num_embeddings", None)
    ids = [window for window in windows if window.numel()]
    if not ids:
        raise DataError("the calibration windows hold no token: pass token ids [samples, seqlen]")
    smallest, largest = min(int(window.min()) for window in ids), max(int(window.max()) for window in ids)
    if known is not None and not 0 <= smallest <= largest < known:
        raise DataError(
            f"the calibration windows have token ids from {smallest} to {largest}, but the model knows 0 to "
            f"{known - 1}: were they made with another tokenizer?"
        )


def zeros_inside(module: nn.Module, decoder: Decoder) -> dict[str, int]:
    """Return the number of zeros of each Linear of an onloaded block, or of all where `module` is the model."""
    linears = [
        linear
        for block in decoder.blocks
        if module is decoder.model or module is block.module
        for linear in block.linears
    ]
    return zeros_of(linears)


def check_fewer_zeros(recipe: Recipe, decoder: Decoder, zeros: Mapping[str, int]) -> None:
    """Check that a model has not more zeros than it is to have, before anything is calibrated.

    A single row or matrix may have more than its share: it then loses nothing.

    Raises:
        PruningError: it has more in all.
    """
    if not recipe.config.is_stated:
        return
    scoped = [linear for linear in decoder.linears if recipe.config.scope in ("all", linear.sublayer)]
    weights, found = sum(linear.weight.numel() for linear in scoped), sum(zeros[linear.name] for linear in scoped)
    if found > weights * (recipe.config.target + ZEROS_OF_A_DENSE_MODEL):
        raise PruningError(
            f"{found} of {weights} prunable weights ({found / weights:.4f}) are zero already, and "
            f"{recipe.config.target:.4f} is asked for: the model was pruned before; ask for more, or take the dense one"
        )


def check_counts(report: PruneReport, decoder: Decoder, before: Mapping[str, int]) -> None:
    """Compare the zeros of every Linear with its target; zeros that were there before may come on top.

    Raises:
        PruningError: they differ by more than one weight per row.
    """
    rows = {linear.name: len(linear.weight) for linear in decoder.linears}
    for item in report.linears:
        surplus = item.zeros - item.weights * item.target
        if surplus < -rows[item.name] or surplus > rows[item.name] + before.get(item.name, item.weights):
            raise PruningError(
                f"{item.name}: {item.zeros} of {item.weights} weights are zero, but {item.target:.4f} was asked for"
            )


def warn_if_pruned_before(decoder: Decoder, zeros: int) -> None:
    """Warn if the dense model has more than a few zero weights."""
    total = sum(linear.weight.numel() for linear in decoder.linears)
    if zeros > total * ZEROS_OF_A_DENSE_MODEL:
        logger.warning(
            "%d of the %d prunable weights were zero before: they count towards the achieved sparsity", zeros, total
        )
