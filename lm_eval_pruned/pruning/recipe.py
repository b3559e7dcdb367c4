"""Recipes: a configuration with its names looked up, its preset applied, and the files that it names read.

A recipe is made once, by `resolve`, before any weight is loaded; from there on it is what travels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, DataError, PrunedEvalError
from lm_eval_pruned.pruning.allocations import ALLOCATIONS, Allocation, listed
from lm_eval_pruned.pruning.allocations.signals.kinds import OfMatrix
from lm_eval_pruned.pruning.amount import check_amount
from lm_eval_pruned.pruning.calibration.choose_source import choose_source
from lm_eval_pruned.pruning.calibration.readers import read_array
from lm_eval_pruned.pruning.calibration.source import CalibrationSource
from lm_eval_pruned.pruning.checkpoint.mask_file import MaskFile, find_mask_file, read_mask_file
from lm_eval_pruned.pruning.masks.rule import MaskRule, Ranking
from lm_eval_pruned.pruning.methods import METHODS, Method, PositionMethod, SearchMethod
from lm_eval_pruned.pruning.model.decoder import SUBLAYERS
from lm_eval_pruned.pruning.model.structure import Sublayer
from lm_eval_pruned.pruning.preset import apply_preset
from lm_eval_pruned.registry import source_digest

# Arguments that became settable after artifacts existed: at their defaults they leave fingerprints as they were.
_LATER_SETTINGS = ("alphapruning_epsilon", "dlp_alpha")
_DEFAULTS = {field.name: field.default for field in fields(PruneConfig)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A pruning configuration that can be executed: its method and allocation looked up, its files read.

    Attributes:
        config: the settings, with the preset applied.
        method: the pruning method; None for the dense baseline.
        allocation: how the sparsity is spread over the blocks.
        scores: LayerIF scores [blocks groups] that a file gave in place of the measured signal.
        every_tie: tie rule of the masks, see `MaskRule`.
        paper_chunks: whether calibration texts are cut into the chunks of the paper's code.
        masks: a mask file that is applied in place of pruning; the other fields say how its masks were made.
    """

    config: PruneConfig
    method: Method | None
    allocation: Allocation
    scores: NDArray[np.float64] | None = None
    every_tie: bool = False
    paper_chunks: bool = False
    masks: MaskFile | None = None

    @property
    def exclude(self) -> str | None:
        """The regular expression of matrices to leave alone; a dense run leaves all alone."""
        return None if self.method is None else self.config.exclude

    @property
    def drops_blocks(self) -> bool:
        """Whether whole blocks are dropped, so that no mask is made."""
        return self.method is not None and self.method.drops_blocks

    @property
    def reshapes(self) -> bool:
        """Whether weights are taken out of the model, in blocks or channels, so that no mask is made."""
        return self.method is not None and self.method.reshapes

    @property
    def searches_blocks(self) -> bool:
        """Whether the blocks to drop are found by running the whole model without them."""
        return isinstance(self.method, SearchMethod) and self.config.blocks is None

    @property
    def measures_signal(self) -> bool:
        """Whether the signal of the allocation is measured on the dense model."""
        has_signal = self.scores is None and self.masks is None
        return self.method is not None and not self.method.reshapes and has_signal

    @property
    def needs_calibration(self) -> bool:
        """Whether calibration windows are needed, by the method or by the signal of the allocation."""
        if self.method is None or self.config.blocks is not None or self.masks is not None:
            return False
        return self.method.needs_calibration or (self.measures_signal and self.allocation.signal.needs_windows)

    @property
    def needs_gradients(self) -> bool:
        """Whether gradients are taken, which run through the whole model."""
        return self.measures_signal and self.allocation.signal.needs_gradients

    @property
    def signal_of_matrices(self) -> OfMatrix | None:
        """`Signal.of_matrix` of the allocation's signal; None if it has none or is not measured."""
        return self.allocation.signal.of_matrix if self.measures_signal else None

    @property
    def searches_sparsities(self) -> bool:
        """Whether the sparsities of the blocks are found by running the model pruned to them."""
        return self.measures_signal and self.allocation.signal.runs_whole_model

    @property
    def needs_whole_model(self) -> bool:
        """Whether all weights have to be in memory at once, to take gradients or to run candidates of a search."""
        return self.needs_gradients or self.searches_blocks or self.searches_sparsities

    @property
    def allocation_groups(self) -> Sequence[tuple[Sublayer, ...]]:
        """The sublayers of a block whose sparsity is allocated together, within the scope."""
        scoped = tuple(one for one in SUBLAYERS if self.config.scope in ("all", one))
        apart = self.allocation.split_by is not None and getattr(self.config, self.allocation.split_by) == "module"
        return [(one,) for one in scoped] if apart else [scoped]

    @property
    def compare(self) -> Ranking:
        """Whether scores are ranked within rows or the matrix: the method's own choice unless the user made one."""
        if self.config.compare != "auto":
            return self.config.compare
        return "matrix" if self.method is None else self.method.compare

    def known_drops(self, blocks: int) -> tuple[int, ...]:
        """Return the blocks to drop where the settings alone decide, as named or by position; else ().

        Raises:
            ArgumentError: as `count_to_drop`.
        """
        count = count_to_drop(self.config, blocks)
        if self.config.blocks is None and isinstance(self.method, PositionMethod):
            return self.method.chosen(blocks, count, self.config.random_seed)
        return self.config.named_blocks

    def rule(self, sparsity: float) -> MaskRule:
        """Return the mask rule of a Linear that is to lose the fraction `sparsity` of its weights."""
        return MaskRule(sparsity=sparsity, compare=self.compare, pattern=self.config.n_m, every_tie=self.every_tie)

    def calibration_source(self, pretrained: str) -> CalibrationSource:
        """Return where the calibration windows for the checkpoint `pretrained` (folder or hub id) come from."""
        return choose_source(
            self.config,
            pretrained,
            is_needed=self.needs_calibration,
            paper_chunks=self.paper_chunks,
            least=self.allocation.signal.least_windows if self.measures_signal else 1,
        )

    @property
    def plugin_sources(self) -> list[str | None]:
        """Digests of the code of method, allocation and signal; "" for ours, None for code that is in no file."""
        method = "" if self.method is None else self.method.source
        return [method, self.allocation.source, source_digest(self.allocation.signal.measure)]

    @property
    def is_reproducible(self) -> bool:
        """Whether the fingerprint determines the masks: code that is in no file may change unseen."""
        return self.masks is not None or None not in self.plugin_sources

    def determining(self) -> dict[str, object]:
        """Return the settings that decide which weights are removed, and no others, for the fingerprint."""
        config, allocation = self.config, self.allocation
        if self.method is None:
            return {"method": "none"}
        if self.masks is not None:
            return {"masks": self.masks.sha256}
        plugins = {"sources": self.plugin_sources} if any(self.plugin_sources) else {}
        seed = {"random_seed": config.random_seed} if self.method.seeded and config.blocks is None else {}
        if self.method.drops_blocks:
            return {
                "method": config.method,
                "num_blocks": config.num_blocks,
                "sparsity": config.sparsity,
                **({} if config.blocks is None else {"blocks": config.blocks}),
                **seed,
                **({"greedy_by": config.greedy_by} if self.searches_blocks else {}),
                **plugins,
            }
        if self.method.reshapes:
            settings = {"method": config.method, "sparsity": config.sparsity, "propagate": config.propagate}
            return {**settings, **plugins}
        used = (*allocation.settings, *([allocation.split_by] if allocation.split_by else []))
        used += allocation.signal.settings
        settings = {name: getattr(config, name) for name in used}
        return {
            "method": config.method,
            "alloc": "listed" if config.is_listed else config.alloc,
            "listed": allocation.listed,
            "scores": None if self.scores is None else self.scores.tolist(),
            "settings": {
                name: value
                for name, value in settings.items()
                if not (name in _LATER_SETTINGS and value == _DEFAULTS[name])
            },
            "target": config.target,
            "pattern": config.pattern,
            "scope": config.scope,
            **({"exclude": config.exclude} if config.exclude else {}),
            "compare": self.compare,
            "propagate": config.propagate if self.method.needs_calibration else None,
            "preset": config.preset,
            **seed,
            **plugins,
        }

    def effective(self) -> dict[str, object]:
        """Return every setting as it takes effect, for the report."""
        # Wherever the file lies, it is known by its content.
        masks = None if self.masks is None else self.masks.sha256[:16]
        return {**asdict(self.config), "sparsity": self.config.target or None, "compare": self.compare, "masks": masks}


def resolve(config: PruneConfig) -> Recipe:
    """Look up the names in `config` and read the small files that it names; call it before loading weights.

    Raises:
        UnknownNameError: there is no such method or allocation.
        ArgumentError: arguments contradict the method, or `preset` does not cover this method or allocation.
        MissingDataError, DataError: a list of sparsities or a file of scores cannot be read.
    """
    if config.masks is not None:
        return recipe_of_masks(config, read_mask_file(find_mask_file(config.masks)))
    method = None if config.method == "none" else METHODS[config.method]
    check_amount(config, method)
    preset = apply_preset(config)
    if method is not None and method.reshapes and not method.drops_blocks:
        preset = preset._replace(config=replace(preset.config, scope="mlp"))
    allocation = listed(config.alloc) if config.is_listed else preset.allocation or ALLOCATIONS[config.alloc]
    if method is None or method.reshapes:
        # Nothing is allocated in a dense model; whole blocks, channels and experts have no sparsity of their own.
        allocation = ALLOCATIONS["uniform"]
    return Recipe(
        config=preset.config,
        method=method,
        allocation=allocation,
        scores=read_scores(Path(config.layerif_scores)) if config.layerif_scores else None,
        every_tie=preset.every_tie,
        paper_chunks=preset.paper_chunks,
    )


def recipe_of_masks(config: PruneConfig, masks: MaskFile) -> Recipe:
    """Return the recipe of a mask file: the settings that its masks were made with, of which none has to be given.

    Raises:
        ArgumentError: another setting was given than its masks were made with.
        DataError: it was made with a method or a setting that is not known here.
    """
    stored = {name: value for name, value in dict(masks.report["config"]).items() if name in _DEFAULTS}  # type: ignore[call-overload]
    if stored.get("pattern") != _DEFAULTS["pattern"]:
        # A pattern ranks within its groups, whatever the method says.
        stored["compare"] = _DEFAULTS["compare"]
    try:
        made = PruneConfig(**{**stored, "masks": config.masks})
        method = METHODS[made.method]
    except (PrunedEvalError, TypeError) as error:
        raise DataError(f"masks={config.masks} was made with settings that are not known here: {error}") from None
    for name, value in asdict(config).items():
        if value not in (_DEFAULTS[name], getattr(made, name)):
            raise ArgumentError(
                f"{name}={value} contradicts masks={config.masks}, which has {name}={getattr(made, name)}: leave it out"
            )
    return Recipe(config=made, method=method, allocation=ALLOCATIONS["uniform"], masks=masks)


def count_to_drop(config: PruneConfig, blocks: int) -> int:
    """Return how many blocks to drop: those named, `num_blocks`, or the largest whole number not above `sparsity`.

    Raises:
        ArgumentError: the number is 0, or that of all blocks, or a named block does not exist.
    """
    if named := config.named_blocks:
        if named[-1] >= blocks:
            raise ArgumentError(
                f"blocks={config.blocks}: the model has {blocks} blocks, 0 to {blocks - 1}, and no block {named[-1]}"
            )
        if len(named) == blocks:
            raise ArgumentError(f"blocks={config.blocks} drops all {blocks} blocks of the model: leave at least one")
        return len(named)
    if blocks == 1:
        raise ArgumentError(
            f"method={config.method} drops blocks, and the model has only one block: use a method that removes weights"
        )
    if config.num_blocks is not None:
        count, given = config.num_blocks, f"num_blocks={config.num_blocks}"
    else:
        # 0.3 * 10 is slightly below 3 in floating point.
        count, given = int(config.target * blocks + 1e-9), f"sparsity={config.sparsity}"
    if not 1 <= count < blocks:
        raise ArgumentError(
            f"{given} drops {count} of the model's {blocks} blocks: give num_blocks from 1 to {blocks - 1}, or a "
            f"sparsity of at least {1 / blocks:.4f}"
        )
    return count


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
