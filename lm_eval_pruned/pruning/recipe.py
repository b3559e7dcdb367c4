"""A recipe: a configuration with its names looked up, its preset applied, and the files it names read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from lm_eval_pruned.config import Direction, PruneConfig
from lm_eval_pruned.errors import ArgumentError, DataError
from lm_eval_pruned.pruning.allocations import ALLOCATIONS, Allocation, listed
from lm_eval_pruned.pruning.allocations.layerif import place_by_influence
from lm_eval_pruned.pruning.allocations.spread import to_unit
from lm_eval_pruned.pruning.calibration.readers import read_array
from lm_eval_pruned.pruning.masks.rule import Group, MaskRule
from lm_eval_pruned.pruning.methods import METHODS, DropMethod, Method, ScoreMethod, SolveMethod
from lm_eval_pruned.pruning.model.decoder import Part

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


# Signals that are read from the weights alone, or not at all.
_DATA_FREE = ("none", "tail_exponent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What will be done; `method` is None for the dense baseline.

    `scores` [blocks groups] replace the signal of the allocation; `every_tie` is the tie rule of the masks.
    """

    config: PruneConfig
    method: Method | None
    allocation: Allocation
    scores: NDArray[np.float64] | None = None
    every_tie: bool = False

    @property
    def needs_calibration(self) -> bool:
        """Whether calibration windows must be given: by the method, or by the signal of the allocation."""
        if self.method is None:
            return False
        return self.method.needs_calibration or (self.scores is None and self.allocation.signal not in _DATA_FREE)

    @property
    def needs_gradients(self) -> bool:
        """Whether the allocation is made from gradients, which run through the whole model."""
        return self.method is not None and self.scores is None and self.allocation.signal == "influence"

    @property
    def groups(self) -> Sequence[tuple[Part, ...]]:
        """The parts of a block that are allocated together, within the scope."""
        parts: tuple[Part, ...] = ("attn", "mlp")
        scoped = tuple(part for part in parts if self.config.scope in ("all", part))
        apart = self.allocation.groups is not None and getattr(self.config, self.allocation.groups) == "module"
        return [(part,) for part in scoped] if apart else [scoped]

    @property
    def compare(self) -> Group:
        """The group within which scores are ranked: the method's own unless another was asked for."""
        if self.config.compare != "auto":
            return self.config.compare
        return "matrix" if self.method is None or isinstance(self.method, DropMethod) else self.method.compare

    def rule(self, sparsity: float) -> MaskRule:
        """Return the mask rule of a matrix that is to lose `sparsity` of its weights."""
        return MaskRule(sparsity=sparsity, compare=self.compare, pattern=self.config.group, every_tie=self.every_tie)

    def determining(self) -> dict[str, object]:
        """Return the settings that decide which weights go, and no others, for the fingerprint."""
        config, allocation = self.config, self.allocation
        if self.method is None:
            return {"method": "none"}
        if isinstance(self.method, DropMethod):
            return {"method": config.method, "num_blocks": config.num_blocks, "sparsity": config.sparsity}
        used = (*allocation.settings, *([allocation.groups] if allocation.groups else []))
        if allocation.signal == "outlier_ratio":
            used += ("owl_m",)
        return {
            "method": config.method,
            "alloc": "listed" if config.is_listed else config.alloc,
            "listed": allocation.listed,
            "scores": None if self.scores is None else self.scores.tolist(),
            "settings": {name: getattr(config, name) for name in used},
            "target": config.target,
            "pattern": config.pattern,
            "scope": config.scope,
            "compare": self.compare,
            "propagate": config.propagate if self.method.needs_calibration else None,
            "preset": config.preset,
        }

    def effective(self) -> dict[str, object]:
        """Return every setting as it takes effect, for the report."""
        return {**asdict(self.config), "sparsity": self.config.target or None, "compare": self.compare}


def resolve(config: PruneConfig) -> Recipe:
    """Look up the names in `config` and read the small files it names; call it before loading weights.

    Raises:
        ArgumentError: `preset` says nothing of this method or allocation.
        MissingDataError, DataError: a list of sparsities or a file of scores cannot be read.
    """
    preset = apply_preset(config)
    method = None if config.method == "none" else METHODS[config.method]
    allocation = listed(config.alloc) if config.is_listed else preset.allocation or ALLOCATIONS[config.alloc]
    if not isinstance(method, ScoreMethod | SolveMethod):
        # Nothing is spread over the blocks of a dense model, and whole blocks have no sparsity.
        allocation = ALLOCATIONS["uniform"]
    scores = read_scores(Path(config.layerif_scores)) if config.layerif_scores else None
    return Recipe(config=preset.config, method=method, allocation=allocation, scores=scores, every_tie=preset.every_tie)


def read_scores(path: Path) -> NDArray[np.float64]:
    """Read LayerIF scores from a `.npy`: [blocks 2] for attention and MLP, or [blocks 1] or [blocks] for whole blocks.

    Raises:
        MissingDataError: there is no such file.
        DataError: it does not hold finite numbers in one of these shapes.
    """
    array = read_array(path, f"layerif_scores={path}")
    if array.dtype.kind not in "iuf" or array.ndim not in (1, 2) or array.size == 0:
        raise DataError(f"layerif_scores={path} must hold numbers of shape [blocks, 2] (attention, MLP) or [blocks]")
    scores = array.astype(np.float64).reshape(len(array), -1)
    if not np.isfinite(scores).all():
        raise DataError(f"layerif_scores={path} holds numbers that are not finite")
    return scores
