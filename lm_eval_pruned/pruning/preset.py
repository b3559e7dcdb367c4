"""`preset=paper`: what the code of arXiv 2604.25098 did where it differs from our defaults."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.config import Direction, PruneConfig
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.pruning.allocations import ALLOCATIONS, Allocation
from lm_eval_pruned.pruning.allocations.kinds import Allocate
from lm_eval_pruned.pruning.allocations.layerif import place_by_influence
from lm_eval_pruned.pruning.allocations.spread import to_unit

# The number of texts that ShortGPT was calibrated on in the paper.
SHORTGPT_TEXTS = 100
# The sparsity that the paper's code gave a block whose OWL sparsity is negative; magnitude skipped such a block.
LEAST_OWL = {"wanda": 0.01, "magnitude": 0.0}


class Preset(NamedTuple):
    """A configuration with a preset applied; `allocation` is None where the registered one is used."""

    config: PruneConfig
    allocation: Allocation | None = None
    every_tie: bool = False
    paper_chunks: bool = False


def apply_preset(config: PruneConfig) -> Preset:
    """Apply `preset=paper`: what the code of arXiv 2604.25098 did where it differs from our defaults.

    - magnitude, uniform: every weight up to and including the one after the count is removed, ties as well;
    - wanda, layerif: scores are ranked within the whole matrix, and dense activations are propagated;
    - owl: sparsities below 0 become 0.01 (wanda) or 0 (magnitude), so that the mean drifts above the target;
    - layerif: sparsities that the common factor raises above 1 are clamped, and the mean is not restored;
    - shortgpt: influences over validation texts of PG-19 of at most 1024 characters, 100 unless `calib_samples` says
      otherwise; `calib` can name other texts.

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
        if config.blocks is not None:
            return Preset(config)
        is_default = config.calib is None and config.calib_samples == PruneConfig().calib_samples
        samples = SHORTGPT_TEXTS if is_default else config.calib_samples
        return Preset(replace(config, calib=config.calib or "pg19", calib_samples=samples), paper_chunks=True)
    if config.method not in LEAST_OWL or config.alloc not in ("uniform", "owl", "layerif") or config.n_m:
        given = f"method={config.method}, alloc={config.alloc}, pattern={config.pattern}"
        raise ArgumentError(f"preset=paper was given with {given}, which the paper has not: leave the preset out")
    if config.alloc == "owl":
        return Preset(config, allocation=_paper_owl(LEAST_OWL[config.method]))
    if config.alloc == "layerif":
        if config.method == "wanda":
            config = replace(config, compare="matrix", propagate="dense")
        return Preset(config, allocation=_replaced("layerif", _paper_layerif))
    return Preset(config, every_tie=config.method == "magnitude")


def _paper_owl(least: float) -> Allocation:
    def allocate(
        signal: Float[Tensor, " blocks"], target: float, sizes: Float[Tensor, " blocks"], *, owl_lambda: float = 0.08
    ) -> Float[Tensor, " blocks"]:
        del sizes
        raised = 2 * owl_lambda * to_unit(signal)
        sparsities = target - raised + raised.mean()
        return sparsities.where(sparsities >= 0, least)

    return _replaced("owl", allocate)


def _paper_layerif(
    signal: Float[Tensor, " blocks"],
    target: float,
    sizes: Float[Tensor, " blocks"],
    *,
    layerif_min: float = 0.05,
    layerif_max: float = 0.40,
    layerif_direction: Direction = "protect",
) -> Float[Tensor, " blocks"]:
    share = place_by_influence(signal, layerif_direction) * (layerif_max - layerif_min) + layerif_min
    factor = target * sizes.sum() / (share * sizes).sum()
    return (factor * share).clamp(0.0, 1.0)


def _replaced(name: str, allocate: Allocate) -> Allocation:
    return replace(ALLOCATIONS[name], allocate=allocate)
