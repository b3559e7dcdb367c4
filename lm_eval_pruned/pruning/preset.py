"""`preset=paper`: what the code behind arXiv 2604.25098 did where it differs from the principled default."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.config import Direction, PruneConfig
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.pruning.allocations import Allocation
from lm_eval_pruned.pruning.allocations.kinds import ALLOCATIONS
from lm_eval_pruned.pruning.allocations.layerif import place_by_influence
from lm_eval_pruned.pruning.allocations.spread import to_unit

# ShortGPT was calibrated on so many texts.
SHORTGPT_TEXTS = 100
# What Wanda took where OWL gave a block less than nothing; magnitude left such a block alone.
LEAST_OWL = {"wanda": 0.01, "magnitude": 0.0}


class Preset(NamedTuple):
    """A configuration with a preset applied; `allocation` is None where it is the registered one."""

    config: PruneConfig
    allocation: Allocation | None = None
    every_tie: bool = False


def apply_preset(config: PruneConfig) -> Preset:
    """Return `config` with its preset spelt out.

    - magnitude, uniform: every weight up to and including the one behind the count goes, ties as well;
    - wanda, layerif: scores are compared within the whole matrix, and dense activations flow on;
    - owl: sparsities below 0 become 0.01 (wanda) or 0 (magnitude), so that the mean drifts above the target;
    - layerif: what the common factor lifts above 1 is cut off, and the mean is not restored;
    - shortgpt: influences over 100 validation texts of PG-19 of at most 1024 characters.

    Raises:
        ArgumentError: the paper has no such method or allocation.

    Example:
        >>> preset = apply_preset(PruneConfig(method="wanda", alloc="layerif", sparsity=0.1, preset="paper"))
        >>> preset.config.compare, preset.config.propagate
        ('matrix', 'dense')
    """
    if config.preset == "none":
        return Preset(config)
    if config.method == "shortgpt":
        is_default = config.calib is None and config.calib_samples == PruneConfig().calib_samples
        return Preset(replace(config, calib="pg19", calib_samples=SHORTGPT_TEXTS) if is_default else config)
    if config.method not in LEAST_OWL or config.alloc not in ("uniform", "owl", "layerif") or config.group:
        given = f"method={config.method}, alloc={config.alloc}, pattern={config.pattern}"
        raise ArgumentError(f"preset=paper was given with {given}, which the paper has not: leave the preset out")
    if config.alloc == "owl":
        return Preset(config, allocation=_paper_owl(LEAST_OWL[config.method]))
    if config.alloc == "layerif":
        if config.method == "wanda":
            config = replace(config, compare="matrix", propagate="dense")
        return Preset(config, allocation=_paper_layerif())
    return Preset(config, every_tie=config.method == "magnitude")


def _paper_owl(least: float) -> Allocation:
    def allocate(
        signal: Float[Tensor, " blocks"], target: float, sizes: Float[Tensor, " blocks"], *, owl_lambda: float
    ) -> Float[Tensor, " blocks"]:
        raised = 2 * owl_lambda * to_unit(signal)
        sparsities = target - raised + raised.mean()
        return sparsities.where(sparsities >= 0, least)

    return _instead_of("owl", allocate)


def _paper_layerif() -> Allocation:
    def allocate(
        signal: Float[Tensor, " blocks"],
        target: float,
        sizes: Float[Tensor, " blocks"],
        *,
        layerif_min: float,
        layerif_max: float,
        layerif_direction: Direction,
    ) -> Float[Tensor, " blocks"]:
        share = place_by_influence(signal, layerif_direction) * (layerif_max - layerif_min) + layerif_min
        factor = target * sizes.sum() / (share * sizes).sum()
        return (factor * share).clamp(0.0, 1.0)

    return _instead_of("layerif", allocate)


def _instead_of(name: str, allocate: object) -> Allocation:
    return replace(ALLOCATIONS[name], allocate=allocate)  # type: ignore[arg-type]
