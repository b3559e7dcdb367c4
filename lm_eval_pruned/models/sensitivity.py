"""Sensitivity map: one part of one block is pruned at a time, and the model is run along traces of the dense one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lm_eval_pruned.config import RunConfig
from lm_eval_pruned.divergence.measure import Divergences, diverge
from lm_eval_pruned.divergence.traces import TokenTrace
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.models.diverge import read_for, run_dense
from lm_eval_pruned.models.prune_checkpoint import check_pretrained
from lm_eval_pruned.progress import progress_bar
from lm_eval_pruned.pruning.artifacts.apply import apply_stored
from lm_eval_pruned.pruning.artifacts.sink import InMemorySink
from lm_eval_pruned.pruning.calibration.calibration import Calibration
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions
from lm_eval_pruned.pruning.engine import PruningRun
from lm_eval_pruned.pruning.model.decoder import Block, Decoder, Linear, find_decoder, leave_alone
from lm_eval_pruned.pruning.recipe import Recipe

Parts = Literal["block", "sublayer", "matrix"]


class Cell(NamedTuple):
    """One part of a block at one sparsity, with what pruning it alone changed.

    `part` is "block", "attn" or "mlp", or the name of a matrix in its block.
    """

    block: int
    part: str
    sparsity: float
    weights: int
    divergences: Divergences


class SensitivityMap(NamedTuple):
    """The cells of a model, and the traces along which they were measured."""

    traces: Sequence[TokenTrace]
    cells: list[Cell]


@dataclass(frozen=True, slots=True)
class Dense:
    """The dense weights of a decoder's Linears, to which it is put back after each cell."""

    decoder: Decoder
    weights: Mapping[str, Tensor]

    @classmethod
    def of(cls, decoder: Decoder) -> Dense:
        """Copy the weights."""
        return cls(decoder, {linear.name: linear.weight.detach().clone() for linear in decoder.linears})

    @torch.no_grad()
    def restore(self, linears: Sequence[Linear]) -> None:
        """Put Linears back, in place."""
        for linear in linears:
            linear.weight.copy_(self.weights[linear.name])

    @contextmanager
    def pruned(self, linears: Sequence[Linear], stored: Mapping[str, Tensor]) -> Iterator[None]:
        """Prune Linears as an artifact says, in a `with` block."""
        with torch.no_grad():
            for linear in linears:
                apply_stored(linear, stored[linear.name])
        try:
            yield
        finally:
            self.restore(linears)


def map_pretrained(
    pretrained: str,
    recipes: Sequence[Recipe],
    run: RunConfig,
    options: LoadOptions,
    *,
    places: Sequence[Path],
    parts: Parts,
) -> SensitivityMap:
    """Measure every part of every block at the sparsity of each recipe, with one prefill for each.

    Each recipe prunes the whole model once, for its masks, with dense activations throughout: then those of a part do
    not depend on what else is pruned. The loaded model needs its prunable weights twice.

    Args:
        pretrained: hub id, folder, or the bundled model.
        recipes: how it is pruned, one for each sparsity.
        run: thinking format, and the artifact cache.
        options: how it is loaded.
        places: where the traces are.
        parts: whether blocks, their attention and MLP, or their matrices are pruned alone.

    Raises:
        PrunedEvalError: something is wrong with the settings, the traces, the model or the calibration data.
    """
    for recipe in recipes:
        _check(recipe)
    checked = check_pretrained(pretrained, recipes[0], options)
    read = read_for(checked, run, places)
    windows = checked.windows()
    measured = run_dense(checked, run, read)
    windows = windows or checked.windows_of_model(measured.checkpoint, thinking=run.thinking)
    decoder = leave_alone(find_decoder(measured.checkpoint.model), recipes[0].exclude)
    dense = Dense.of(decoder)
    cells: list[Cell] = []
    groups = [(block, name, linears) for block in decoder.blocks for name, linears in parts_of(block, parts)]
    with progress_bar(len(groups) * len(recipes), desc="map", unit="cell") as bar:
        for recipe in recipes:
            stored = masks_of(recipe, dense, windows)
            for block, name, linears in groups:
                chosen = [linear for linear in linears if linear.name in stored]
                if chosen:
                    with dense.pruned(chosen, stored):
                        found = diverge(measured.model, measured.along)
                    weights = sum(linear.weight.numel() for linear in chosen)
                    cells.append(Cell(block.index, name, recipe.config.target, weights, found))
                bar.update()
    return SensitivityMap(measured.along.traces, cells)


def parts_of(block: Block, parts: Parts) -> list[tuple[str, list[Linear]]]:
    """Return the Linears of each part of a block, by the name of the part."""
    groups: dict[str, list[Linear]] = {}
    for linear in block.linears:
        name = {
            "block": "block",
            "sublayer": linear.sublayer,
            "matrix": linear.name.removeprefix(f"{block.name}."),
        }[parts]
        groups.setdefault(name, []).append(linear)
    return list(groups.items())


def masks_of(recipe: Recipe, dense: Dense, windows: Calibration | None) -> Mapping[str, Tensor]:
    """Prune the whole model for what an artifact would store of each Linear, and put it back."""
    sink = InMemorySink()
    PruningRun(recipe=recipe, decoder=dense.decoder, sink=sink).prune(windows)
    dense.restore(list(dense.decoder.linears))
    return sink.tensors


def _check(recipe: Recipe) -> None:
    if recipe.method is None or recipe.reshapes:
        raise ArgumentError(
            f"method={recipe.config.method} removes no single weights: map prunes one part of a block at a time, so "
            "give a method that does, such as magnitude or wanda"
        )
