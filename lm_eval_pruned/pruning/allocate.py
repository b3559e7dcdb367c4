"""Allocating: from the signal of a dense model to the target sparsity of every Linear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lm_eval_pruned.errors import DataError, PruningError
from lm_eval_pruned.pruning.allocations.signals.signals import SIGNALS, Dense
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.model.decoder import Decoder
from lm_eval_pruned.pruning.recipe import Recipe


class Allocated(NamedTuple):
    """Target sparsity of every Linear in scope, by name, and the signal it was made from."""

    targets: dict[str, float]
    signal: Float[Tensor, "groups blocks"]


def allocate(recipe: Recipe, model: nn.Module, decoder: Decoder, windows: Windows | None) -> Allocated:
    """Return the target sparsity of every Linear in scope; a signal is measured before anything is pruned.

    Raises:
        PruningError: no Linear is in scope.
        DataError: given scores do not fit the model.
    """
    config, allocation = recipe.config, recipe.allocation
    scoped = [
        [[linear for linear in block.linears if linear.part in parts] for block in decoder.blocks]
        for parts in recipe.groups
    ]
    sizes = torch.tensor(
        [[sum(linear.weight.numel() for linear in linears) for linears in group] for group in scoped]
    ).double()
    if not sizes.sum():
        raise PruningError(f"scope={config.scope} matches no Linear weight of this model: use scope=all")
    if recipe.scores is None:
        signal = SIGNALS[allocation.signal](Dense(model, decoder, scoped, windows), config)
    else:
        signal = _given(recipe, len(decoder.blocks))
    settings = {name: getattr(config, name) for name in allocation.settings}
    targets: dict[str, float] = {}
    for group, numbers, weights in zip(scoped, signal, sizes, strict=True):
        if weights.sum():
            sparsities = allocation.allocate(numbers, config.target, weights, **settings).tolist()
            for linears, sparsity in zip(group, sparsities, strict=True):
                targets.update({linear.name: sparsity for linear in linears})
    return Allocated({name: targets[name] for name in _names(decoder) if name in targets}, signal)


def mean_target(targets: Mapping[str, float], decoder: Decoder) -> float:
    """Return the mean of the targets, weighted by the sizes of their Linears."""
    linears = [linear for block in decoder.blocks for linear in block.linears if linear.name in targets]
    wanted = sum(linear.weight.numel() * targets[linear.name] for linear in linears)
    return wanted / sum(linear.weight.numel() for linear in linears)


def _names(decoder: Decoder) -> list[str]:
    return [linear.name for block in decoder.blocks for linear in block.linears]


def _given(recipe: Recipe, blocks: int) -> Float[Tensor, "groups blocks"]:
    """Return the scores of a file as a signal, one row a group; with the scope of one part its column is taken."""
    scores = torch.from_numpy(recipe.scores).T
    if scores.shape[0] == 2 and recipe.config.scope != "all" and len(recipe.groups) == 1:
        scores = scores[["attn", "mlp"].index(recipe.config.scope)][None]
    if scores.shape != (len(recipe.groups), blocks):
        raise DataError(
            f"layerif_scores={recipe.config.layerif_scores} has the shape {list(scores.T.shape)}, but the model has "
            f"{blocks} blocks of {len(recipe.groups)} groups (layerif_groups={recipe.config.layerif_groups}, "
            f"scope={recipe.config.scope}): give [{blocks}, {len(recipe.groups)}]"
        )
    return scores
