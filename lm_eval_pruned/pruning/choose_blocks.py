"""Choose the decoder blocks to drop: named, by position, of least influence, or found by a search."""

from __future__ import annotations

from pathlib import Path

from lm_eval_pruned.progress import progress_bar
from lm_eval_pruned.pruning.artifacts.journal import Journal
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.calibration.window_traces import counted_responses, window_traces
from lm_eval_pruned.pruning.damage import BlockDamage, trials
from lm_eval_pruned.pruning.methods import DropMethod, PositionMethod, SearchMethod
from lm_eval_pruned.pruning.model.decoder import Decoder
from lm_eval_pruned.pruning.recipe import Recipe, count_to_drop
from lm_eval_pruned.pruning.sequential import block_influences, run_influences


def blocks_to_drop(
    recipe: Recipe,
    method: DropMethod | PositionMethod | SearchMethod,
    decoder: Decoder,
    windows: Windows | None,
    journal: Path | None,
) -> frozenset[int]:
    """Return the blocks that are named, or chosen by position, or of least influence or damage.

    Args:
        recipe: how many are dropped, or which.
        method: that of the recipe.
        decoder: the dense model.
        windows: calibration token ids, if the method needs any.
        journal: file from which an interrupted search goes on.

    Raises:
        PruningError: a hidden state is not finite, or influences are undefined.
    """
    if windows is None or isinstance(method, PositionMethod):
        return frozenset(recipe.known_drops(len(decoder.blocks)))
    count = count_to_drop(recipe.config, len(decoder.blocks))
    if isinstance(method, SearchMethod):
        return _search(recipe, method, decoder, windows, journal, count)
    if method.consecutive:
        influences = run_influences(decoder, windows, method, count)
        first = influences.index(min(influences))
        return frozenset(range(first, first + count))
    influences = block_influences(decoder, windows, method)
    return frozenset(sorted(range(len(influences)), key=influences.__getitem__)[:count])


def _search(
    recipe: Recipe, method: SearchMethod, decoder: Decoder, windows: Windows, journal: Path | None, count: int
) -> frozenset[int]:
    """Return the blocks that a search finds; what it has measured so far outlives an interruption."""
    blocks = len(decoder.blocks)
    with progress_bar(trials(blocks, count), desc="blocks left out", unit="trial") as progress:
        damage = BlockDamage(
            decoder=decoder,
            traces=window_traces(windows),
            counted=counted_responses(windows),
            by=recipe.config.greedy_by,
            journal=Journal.read(journal),
            on_measured=progress.update,
        )
        return frozenset(method.search(blocks, count, damage))
