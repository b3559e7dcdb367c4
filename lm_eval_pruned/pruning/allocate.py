"""Allocate sparsities: from a signal of the dense model to the target sparsity of every Linear."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import DataError, PruningError
from lm_eval_pruned.pruning.allocations.signals.kinds import AllocationGroup, DenseModel, Needs, Signal
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.model.decoder import SUBLAYERS, Decoder, check_prunable
from lm_eval_pruned.pruning.recipe import Recipe
from lm_eval_pruned.pruning.reproducible import lacks_deterministic_algorithm, reproducible

logger = logging.getLogger(__name__)


class Allocated(NamedTuple):
    """Target sparsity of every Linear in scope, by name, and the signal that it was derived from.

    `deterministic` tells whether the signal would be the same to the bit if it were measured again.
    """

    targets: dict[str, float]
    signal: Float[Tensor, "groups blocks"]
    deterministic: bool


def allocate(
    recipe: Recipe,
    decoder: Decoder,
    windows: Windows | None,
    journal: Path | None = None,
    measured: Mapping[str, float] = MappingProxyType({}),
) -> Allocated:
    """Return the target sparsity of every Linear in scope; signals are measured before anything is pruned.

    Args:
        recipe: how the model is pruned.
        decoder: the model.
        windows: calibration windows, if any.
        journal: file from which an interrupted search goes on.
        measured: values of `Signal.of_matrix` from the hashing of the model, by the name of their Linear.

    Raises:
        PruningError: no Linear is in scope, or a sparsity is out of range.
        DataError: given scores do not fit the model.
    """
    config, allocation = recipe.config, recipe.allocation
    if recipe.method is not None:
        check_prunable(decoder)
    groups = [AllocationGroup.of(decoder, sublayers) for sublayers in recipe.allocation_groups]
    sizes = [group.sizes() for group in groups]
    if not sum(float(weights.sum()) for weights in sizes):
        if recipe.method is None:
            return Allocated({}, torch.zeros(len(groups), len(decoder.blocks), dtype=torch.float64), True)
        if config.exclude:
            raise PruningError(
                f"exclude={config.exclude} leaves no matrix to prune with scope={config.scope}: give a regular "
                "expression that matches fewer names"
            )
        raise PruningError(f"scope={config.scope} matches no Linear weight of this model: use scope=all")
    deterministic = True
    if recipe.scores is None:
        dense = DenseModel(decoder, groups, windows, journal, measured)
        signal, deterministic = _measured(allocation.signal, dense, config)
    else:
        signal = _given_signal(recipe, len(decoder.blocks))
    spread = allocation.with_settings(config)
    targets: dict[str, float] = {}
    for group, values, weights in zip(groups, signal, sizes, strict=True):
        if weights.sum():
            sparsities = spread(values, config.target, weights)
            if sparsities.shape != weights.shape or not ((sparsities >= 0) & (sparsities <= 1)).all():
                raise PruningError(
                    f"alloc={config.alloc} gave the sparsities {sparsities.tolist()}: it must give {len(weights)} "
                    "numbers from 0 to 1, one for each block"
                )
            for linears, sparsity in zip(group.blocks, sparsities.tolist(), strict=True):
                targets.update({linear.name: sparsity for linear in linears})
    targets = {one.name: targets[one.name] for one in decoder.linears if one.name in targets}
    return Allocated(targets, signal, deterministic)


def mean_target(targets: Mapping[str, float], decoder: Decoder) -> float:
    """Return the mean of the targets, weighted by the sizes of their Linears."""
    linears = [linear for linear in decoder.linears if linear.name in targets]
    wanted = sum(linear.weight.numel() * targets[linear.name] for linear in linears)
    return wanted / max(sum(linear.weight.numel() for linear in linears), 1)


class _Measured(NamedTuple):
    signal: Float[Tensor, "groups blocks"]
    deterministic: bool


def _measured(signal: Signal, dense: DenseModel, config: PruneConfig) -> _Measured:
    """Measure a signal; if it needs gradients, by operators that compute the same sums each time where they exist."""
    if signal.needs < Needs.GRADIENTS:
        return _Measured(signal.measure(dense, config), deterministic=True)
    try:
        with reproducible(strict=True):
            return _Measured(signal.measure(dense, config), deterministic=True)
    except PruningError as error:
        if not lacks_deterministic_algorithm(error.__cause__):
            raise
        logger.warning(
            "alloc=%s: the sparsities may differ in their last digits from one run to the next, as PyTorch has no "
            "deterministic algorithm for an operator of this model on this device (%s)",
            config.alloc,
            str(error.__cause__).partition(",")[0],
        )
    return _Measured(signal.measure(dense, config), deterministic=False)


def _given_signal(recipe: Recipe, blocks: int) -> Float[Tensor, "groups blocks"]:
    """Return the scores of a file as a signal; if only one sublayer is in scope, its column is taken."""
    groups = len(recipe.allocation_groups)
    scores = torch.from_numpy(recipe.scores).T
    if scores.shape[0] == 2 and recipe.config.scope != "all" and groups == 1:
        scores = scores[SUBLAYERS.index(recipe.config.scope)][None]
    if scores.shape != (groups, blocks):
        raise DataError(
            f"layerif_scores={recipe.config.layerif_scores} has the shape {list(scores.T.shape)}, but the model has "
            f"{blocks} blocks of {groups} groups (layerif_groups={recipe.config.layerif_groups}, "
            f"scope={recipe.config.scope}): give [{blocks}, {groups}]"
        )
    return scores
