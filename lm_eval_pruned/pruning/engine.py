"""The pruning engine: apply a recipe to a model, or the artifact that an earlier run stored for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, PruningError
from lm_eval_pruned.process_memory import explain_out_of_memory
from lm_eval_pruned.pruning.allocate import allocate, mean_target
from lm_eval_pruned.pruning.artifacts.apply import apply_artifact
from lm_eval_pruned.pruning.artifacts.report import (
    Outcome,
    PruneReport,
    Stopwatch,
    count_outcome,
    peak_memory,
    software_versions,
)
from lm_eval_pruned.pruning.artifacts.sink import BlockSink, InMemorySink, narrow_blocks, visit_blocks
from lm_eval_pruned.pruning.artifacts.store import SCORES, Artifact, Store
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.calibration.calibration import Calibration
from lm_eval_pruned.pruning.channels import kept_channels
from lm_eval_pruned.pruning.checkpoint.mask_file import MaskFile
from lm_eval_pruned.pruning.checks import (
    check_counts,
    check_fewer_zeros,
    check_onloaded,
    check_token_ids,
    warn_if_pruned_before,
)
from lm_eval_pruned.pruning.choose_blocks import blocks_to_drop
from lm_eval_pruned.pruning.dense import Dense, evaluating, read_dense
from lm_eval_pruned.pruning.expert_scores import kept_experts
from lm_eval_pruned.pruning.fit import check_supported
from lm_eval_pruned.pruning.methods import DropMethod, ExpertMethod, PositionMethod, SearchMethod, WidthMethod
from lm_eval_pruned.pruning.model.decoder import Decoder, check_prunable, find_decoder, leave_alone
from lm_eval_pruned.pruning.model.drop_blocks import drop_blocks
from lm_eval_pruned.pruning.model.narrowing import Narrowing
from lm_eval_pruned.pruning.model.narrowing_search import find_narrowing
from lm_eval_pruned.pruning.recipe import Recipe, resolve
from lm_eval_pruned.pruning.reproducible import reproducible
from lm_eval_pruned.pruning.sequential import prune_blocks

logger = logging.getLogger(__name__)


def prune_model(
    model: nn.Module,
    config: PruneConfig | Recipe,
    windows: Windows | Calibration | None = None,
    *,
    artifacts: Path | None = None,
    stopwatch: Stopwatch | None = None,
) -> PruneReport:
    """Set weights of `model` to zero, in place, and return the report counted from the result.

    Args:
        model: a causal language model of transformers, loaded in any floating dtype.
        config: method, allocation, sparsity and everything else that decides which weights are removed; or a recipe
            that was resolved from it.
        windows: calibration token ids [samples seqlen], or a `Calibration` that makes them when they are needed.
        artifacts: folder of the artifact cache. If it holds the masks of the same configuration, weights and windows,
            they are applied and nothing is calibrated.
        stopwatch: adds seconds that were already spent on loading to the report.

    Raises:
        ArgumentError: the method needs calibration windows and none were given.
        PruningError: nothing matches, a number is not finite, or the result is not what was asked for.
    """
    recipe = config if isinstance(config, Recipe) else resolve(config)
    run = PruningRun(recipe=recipe, decoder=find_decoder(model), stopwatch=stopwatch or Stopwatch())
    return run.execute(windows, artifacts)


@dataclass(slots=True, kw_only=True)
class PruningRun:
    """One recipe applied to one model.

    Attributes:
        recipe: how to prune.
        decoder: the model, pruned in place.
        sink: takes what an artifact stores, and each finished block.
        stopwatch: times the phases.
        deterministic: whether no operator was used whose sums differ from one run to the next.
        journal: file from which an interrupted search goes on; None without an artifact cache.
    """

    recipe: Recipe
    decoder: Decoder
    sink: BlockSink = field(default_factory=InMemorySink)
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    deterministic: bool = True
    journal: Path | None = None
    _sizes: Mapping[str, int] = field(init=False)
    _measured: Mapping[str, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Leave alone what the recipe excludes.

        Raises:
            ArgumentError: it excludes nothing of this model.
        """
        self.decoder = leave_alone(self.decoder, self.recipe.exclude)
        # Those of the dense model: channels are taken out of its tensors.
        self._sizes = self.decoder.sizes

    def execute(self, windows: Windows | Calibration | None, artifacts: Path | None) -> PruneReport:
        """Prune, or apply the artifact of an earlier run, and return the report.

        Raises:
            ArgumentError: the recipe needs calibration windows and none were given.
            PruningError: as `prune_model`.
        """
        check_supported(self.recipe, getattr(self.decoder.model, "config", None))
        check_onloaded(self.decoder)
        if self.recipe.method is not None:
            check_prunable(self.decoder)
        calibration = _calibration(self.recipe, windows)
        if calibration is not None and not isinstance(windows, Calibration):
            check_token_ids(self.decoder.model, calibration.windows())
        # What neither changes weights nor gives the same masks twice has no artifact.
        is_stored = artifacts is not None and self.recipe.method is not None and self.recipe.is_reproducible
        store = Store(folder=artifacts) if artifacts is not None and is_stored else None
        dense = read_dense(self.decoder, self.recipe, calibration, store, self.stopwatch)
        self._measured = dense.measured
        if self.recipe.masks is not None:
            self.recipe.masks.check_weights(dense.sha256)
        warn_if_pruned_before(self.decoder, sum(dense.zeros.values()))
        if self.recipe.method is not None and not self.recipe.reshapes:
            check_fewer_zeros(self.recipe, self.decoder, dense.zeros)
        if store is None:
            report = self.report(self.prune(calibration), dense)
        else:
            report = self._execute_once(calibration, dense, store)
        logger.info(
            "%s: %d of %d weights are zero", self.recipe.config.method, report.zero_weights, report.prunable_weights
        )
        return report

    def prune(self, calibration: Calibration | None) -> Outcome:
        """Calibrate and prune, in place; what an artifact stores goes to the sink.

        Raises:
            PruningError: as `prune_model`.
        """
        if self.recipe.masks is not None:
            return self._apply_shared(self.recipe.masks)
        with self.stopwatch.phase("calibrate"):
            windows = calibration.windows() if calibration else None
        with evaluating(self.decoder.model), explain_out_of_memory(), reproducible():
            match self.recipe.method:
                case DropMethod() | PositionMethod() | SearchMethod() as method:
                    with self.stopwatch.phase("calibrate"):
                        removed = blocks_to_drop(self.recipe, method, self.decoder, windows, self.journal)
                    return self._drop(removed)
                case WidthMethod() | ExpertMethod() as method:
                    assert windows is not None, "calibration windows were asked for"
                    return self._narrow(method, windows)
                case _:
                    return self._prune_weights(windows)

    def apply(self, artifact: Artifact) -> Outcome:
        """Apply what an earlier run stored, in place."""
        with self.stopwatch.phase("prune"):
            if isinstance(self.recipe.method, WidthMethod | ExpertMethod):
                narrowing = find_narrowing(self.decoder, self.recipe.method.unit, self.recipe.config.target)
                kept = {name: artifact.tensors[kept_name(name)] for name in narrowing.first(self.decoder)}
                return self._narrowed(narrowing, kept)
            return apply_artifact(artifact, self.decoder, self.sink)

    def _apply_shared(self, masks: MaskFile) -> Outcome:
        """Apply a mask file, in place, and pass its masks on as those of an artifact."""
        artifact = masks.artifact()
        unknown = sorted(artifact.tensors.keys() - {linear.name for linear in self.decoder.linears})
        if unknown:
            raise PruningError(f"masks={masks.path} has a mask of {unknown[0]}, which is not pruned in this model")
        for name, tensor in artifact.tensors.items():
            self.sink.store(name, tensor)
        return self.apply(artifact)

    def report(self, outcome: Outcome, dense: Dense) -> PruneReport:
        """Count the result.

        Raises:
            PruningError: a matrix has more or fewer zeros than it was to have, by more than one per row.
        """
        config = self.recipe.config
        scores = self.sink.tensors.get(SCORES)
        report = PruneReport(
            **count_outcome(self.decoder, outcome, config.scope, self._sizes)._asdict(),
            fingerprint=dense.fingerprint,
            config=self.recipe.effective(),
            target_sparsity=config.target if config.is_stated else mean_target(outcome.targets, self.decoder),
            model_weights=dense.parameters,
            dense_sha256=dense.sha256,
            seconds={name: round(value, 3) for name, value in self.stopwatch.seconds.items()},
            peak_memory_bytes=peak_memory(self.decoder.device),
            software=software_versions(self.decoder.device, deterministic=self.deterministic),
            remaining_weights=sum(parameter.numel() for parameter in self.decoder.model.parameters()),
            scores=None if scores is None else scores.numpy(),
        )
        # Nothing is set to zero in what is left, whatever zeros that has.
        if self.recipe.method is not None and not self.recipe.reshapes:
            check_counts(report, self.decoder, dense.zeros)
        return report

    def _execute_once(self, calibration: Calibration | None, dense: Dense, store: Store) -> PruneReport:
        """Prune and store the artifact, or apply the one that is stored."""
        digest = dense.fingerprint
        with store.reserve(digest) as reservation:
            stored = reservation.artifact
            if stored is None:
                self.journal = store.journal(digest)
                report = self.report(self.prune(calibration), dense)
                reservation.write(Artifact(report.as_dict(), self.sink.tensors))
                with suppress(OSError):
                    self.journal.unlink(missing_ok=True)
                return report
        logger.info("what was pruned before is read from %s: nothing is calibrated", store.folder / digest)
        outcome = self.apply(stored)
        if SCORES in stored.tensors:
            self.sink.store(SCORES, stored.tensors[SCORES])
        return self.report(outcome, dense)

    def _prune_weights(self, windows: Windows | None) -> Outcome:
        """Allocate sparsities and prune block by block; a dense model is only counted."""
        with self.stopwatch.phase("allocate"):
            targets, signal, self.deterministic = allocate(
                self.recipe, self.decoder, windows, self.journal, self._measured
            )
        if self.recipe.allocation.signal.is_stored:
            self.sink.store(SCORES, signal.T.contiguous())
        if self.recipe.method is None:
            zeros = visit_blocks(self.decoder, self.sink)
        else:
            used = windows if self.recipe.method.needs_calibration else None
            zeros = prune_blocks(self.recipe, self.decoder, targets, used, self.sink, self.stopwatch)
        return Outcome(targets, frozenset(), zeros)

    def _drop(self, removed: frozenset[int]) -> Outcome:
        """Drop blocks; Linears that are removed with them have a target of 1, the remaining ones of 0."""
        names = [linear.name for linear in self.decoder.linears]
        with self.stopwatch.phase("prune"):
            left = drop_blocks(self.decoder, removed)
            zeros = visit_blocks(left, self.sink)
        # A shared Linear may be removed from a remaining block, or remain of a dropped one.
        remaining = {linear.name for linear in left.linears}
        return Outcome({name: float(name not in remaining) for name in names}, removed, zeros)

    def _narrow(self, method: WidthMethod | ExpertMethod, windows: Windows) -> Outcome:
        """Choose the channels of every MLP, or the experts of every mixture, that stay, and remove the others."""
        with self.stopwatch.phase("prune"):
            narrowing = find_narrowing(self.decoder, method.unit, self.recipe.config.target)
        with self.stopwatch.phase("calibrate"):
            if isinstance(method, ExpertMethod):
                kept = kept_experts(self.decoder, narrowing, windows, method)
            else:
                dense = self.recipe.config.propagate == "dense"
                kept = kept_channels(self.decoder, narrowing, windows, method, dense=dense)
        for name, units in kept.items():
            self.sink.store(kept_name(name), units)
        with self.stopwatch.phase("prune"):
            return self._narrowed(narrowing, kept)

    def _narrowed(self, narrowing: Narrowing, kept: Mapping[str, Tensor]) -> Outcome:
        """Remove channels or experts; the Linears that have, or are, some have the removed fraction as their target."""
        targets = narrowing.targets(self.decoder, kept)
        zeros = narrow_blocks(self.decoder, narrowing, kept, self.sink)
        return Outcome(targets, frozenset(), zeros)


def kept_name(block: str) -> str:
    """Return the name under which an artifact stores the channels or experts that a block keeps."""
    return f"{block}.kept"


def _calibration(recipe: Recipe, windows: Windows | Calibration | None) -> Calibration | None:
    if not recipe.needs_calibration:
        return None
    if windows is None:
        needs = f"method={recipe.config.method}, alloc={recipe.config.alloc}"
        raise ArgumentError(f"{needs} needs calibration windows: pass token ids [samples, seqlen]")
    return windows if isinstance(windows, Calibration) else Calibration.of(windows)
