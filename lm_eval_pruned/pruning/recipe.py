"""A recipe: a configuration with its names looked up, its preset applied, and the files it names read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import DataError
from lm_eval_pruned.pruning.allocations import ALLOCATIONS, Allocation, listed
from lm_eval_pruned.pruning.blocks import Part
from lm_eval_pruned.pruning.mask import Group, MaskRule
from lm_eval_pruned.pruning.methods import METHODS, DropMethod, Method, ScoreMethod, SolveMethod
from lm_eval_pruned.pruning.preset import apply_preset
from lm_eval_pruned.pruning.sources import read_array

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
