"""Resolve each pruning configuration of a sweep once, for all cells that share it."""

from __future__ import annotations

from functools import cache

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.pruning.recipe import Recipe, resolve


@cache
def resolved(config: PruneConfig) -> Recipe:
    """Return the recipe of a configuration; see `pruning.recipe.resolve` for the errors."""
    return resolve(config)
