"""Prune a checkpoint to a new one without the harness: block by block from its files, or loaded whole.

Reading, pruning and writing one block at a time lets `lm-eval-pruned prune` handle models that do not fit in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor, nn
from transformers import GenerationConfig

from lm_eval_pruned.config import RunConfig
from lm_eval_pruned.models.arguments import peek_config
from lm_eval_pruned.models.checkpoint_checks import check_checkpoint, check_weights
from lm_eval_pruned.models.traces import read_questions, trace_generator
from lm_eval_pruned.process_memory import trim_heap
from lm_eval_pruned.pruning.artifacts.report import PruneReport, Stopwatch
from lm_eval_pruned.pruning.artifacts.store import WRITE_ERRORS, artifacts_folder, spill
from lm_eval_pruned.pruning.calibration.calibration import Calibration
from lm_eval_pruned.pruning.calibration.replay import NeedsWholeModelError
from lm_eval_pruned.pruning.calibration.source import CalibrationSource, CheckpointInfo
from lm_eval_pruned.pruning.checkpoint.diagnose import explained
from lm_eval_pruned.pruning.checkpoint.load import Checkpoint, load_checkpoint
from lm_eval_pruned.pruning.checkpoint.names import Renumbering
from lm_eval_pruned.pruning.checkpoint.offload import Offloaded
from lm_eval_pruned.pruning.checkpoint.open_offloaded import OffloadedCheckpoint, open_offloaded
from lm_eval_pruned.pruning.checkpoint.other_files import write_other_files
from lm_eval_pruned.pruning.checkpoint.reader import Shards
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions, load_tokenizer, read_config, resolve_pretrained
from lm_eval_pruned.pruning.checkpoint.rewrite import Rewriter, write_whole
from lm_eval_pruned.pruning.checkpoint.writer import CheckpointWriter
from lm_eval_pruned.pruning.engine import PruningRun, prune_model
from lm_eval_pruned.pruning.fit import check_fits
from lm_eval_pruned.pruning.methods import ExpertMethod
from lm_eval_pruned.pruning.model.decoder import Block, find_decoder
from lm_eval_pruned.pruning.model.narrowing import Narrowing
from lm_eval_pruned.pruning.model.removal import fit_slices
from lm_eval_pruned.pruning.model.shorter_config import Kept
from lm_eval_pruned.pruning.recipe import Recipe

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedCheckpoint:
    """A checkpoint that a recipe fits, with files and calibration data that are there; no weight was read.

    Attributes:
        source: folder or hub id.
        options: how it is loaded.
        calibration: where its calibration windows come from.
        questions: what it is asked where these are its own traces.
    """

    source: str
    options: LoadOptions
    calibration: CalibrationSource
    questions: Sequence[str]

    def windows(self) -> Calibration | None:
        """Return the calibration windows, None where there are none or the model itself writes them."""
        if self.calibration.needs_model:
            return None
        with explained(self.source, revision=self.options.revision):
            tokenizer = load_tokenizer(self.source, self.options)
            info = CheckpointInfo.of(read_config(self.source, self.options), tokenizer)
        return self.calibration.windows(info)

    def load(self) -> Checkpoint:
        """Load the whole model and its tokenizer."""
        with explained(self.source, revision=self.options.revision):
            return load_checkpoint(self.source, self.options)

    def windows_of_model(self, checkpoint: Checkpoint, *, thinking: str) -> Calibration | None:
        """Return the calibration windows that the loaded model writes, None where they come from elsewhere."""
        if not self.calibration.needs_model:
            return None
        generate = trace_generator(checkpoint, self.questions, thinking=thinking)
        return self.calibration.windows(CheckpointInfo.of(checkpoint.model.config, checkpoint.tokenizer, generate))


def check_pretrained(pretrained: str, recipe: Recipe, options: LoadOptions) -> CheckedCheckpoint:
    """Check a recipe against a checkpoint, its files and the calibration data, before any weight is loaded.

    Raises:
        PrunedEvalError: something is wrong with them.
    """
    source = resolve_pretrained(pretrained)
    config = peek_config(source, options.for_transformers())
    if config is not None:
        check_fits(recipe, config, dtype=options.dtype)
    options = replace(options, dequantise=recipe.method is not None)
    check_checkpoint(source, options, prunes=recipe.method is not None)
    calibration = recipe.calibration_source(source)
    calibration.check()
    questions = read_questions(calibration)
    with explained(source, revision=options.revision):
        check_weights(source, options)
    return CheckedCheckpoint(source=source, options=options, calibration=calibration, questions=questions)


def prune_pretrained(
    pretrained: str, recipe: Recipe, run: RunConfig, options: LoadOptions, *, output: Path | None = None
) -> PruneReport:
    """Prune a checkpoint, write the result if an output folder is given, and return the report.

    Args:
        pretrained: hub id, folder, or the bundled model.
        recipe: how it is pruned.
        run: thinking format for traces, and the artifact cache.
        options: how it is loaded.
        output: folder for the pruned checkpoint.

    Raises:
        PrunedEvalError: something is wrong with the settings, the model or the calibration data.
    """
    checked = check_pretrained(pretrained, recipe, options)
    source, options = checked.source, checked.options
    artifacts = artifacts_folder(run.artifacts)
    stopwatch = Stopwatch()
    calibration, windows = checked.calibration, checked.windows()
    if not needs_whole(recipe, calibration, options):
        with stopwatch.phase("load"), explained(source, revision=options.revision):
            opened = open_offloaded(source, options)
        if opened is not None:
            try:
                return prune_offloaded(opened, recipe, windows, artifacts=artifacts, output=output, stopwatch=stopwatch)
            except NeedsWholeModelError as reason:
                logger.info("%s", reason)
    stored = Shards.open_any(source, revision=options.revision, subfolder=options.subfolder)
    with stopwatch.phase("load"):
        checkpoint = checked.load()
    model = checkpoint.model
    windows = windows or checked.windows_of_model(checkpoint, thinking=run.thinking)
    container = find_decoder(model).blocks[0].name.rpartition(".")[0]
    dense = {*model.state_dict()}
    report = prune_model(model, recipe, windows, artifacts=artifacts, stopwatch=stopwatch)
    if output is not None:
        # The default can always be saved; transformers refuses some generation configs that it reads.
        model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        drops_experts = isinstance(recipe.method, ExpertMethod)
        renumbering = Renumbering(container=container, removed=report.removed_blocks, drops_experts=drops_experts)
        write_whole(model, stored, output, dense=dense, renumbering=renumbering, keeps_dtype=options.dtype == "auto")
        write_other_files(source, options, model, output, reshaped=recipe.reshapes)
    return report


def needs_whole(recipe: Recipe, calibration: CalibrationSource, options: LoadOptions) -> bool:
    """Return whether the model has to be loaded whole, whatever its checkpoint is like.

    Gradients and the candidates of a search run through the whole model, the model itself generates traces, and remote
    code is saved along with it.
    """
    return recipe.needs_whole_model or calibration.needs_model or options.trust_remote_code


def prune_offloaded(
    opened: OffloadedCheckpoint,
    recipe: Recipe,
    windows: Calibration | None,
    *,
    artifacts: Path | None,
    output: Path | None,
    stopwatch: Stopwatch,
) -> PruneReport:
    """Prune an offloaded model as `prune_model` prunes a loaded one, with two blocks in memory at a time.

    Args:
        opened: the checkpoint, with its weights offloaded.
        recipe: how it is pruned.
        windows: calibration windows, if any.
        artifacts: folder of the artifact cache.
        output: folder that the pruned checkpoint is written to; None writes nothing.
        stopwatch: times the phases.
    """
    model, residency, source, options = opened.model, opened.residency, opened.source, opened.options
    container = opened.decoder.blocks[0].name.rpartition(".")[0]
    with nullcontext() if output is None else CheckpointWriter(folder=output) as writer:
        rewriter = None
        if writer is not None:
            rewriter = Rewriter(source=residency.shards, writer=writer, keeps_dtype=options.dtype == "auto")
        sink = DiskSink(model=model, residency=residency, artifacts=artifacts, rewriter=rewriter)
        run = PruningRun(recipe=recipe, decoder=opened.decoder, sink=sink, stopwatch=stopwatch)
        try:
            report = run.execute(windows, artifacts)
        except NeedsWholeModelError:
            if writer is not None:
                writer.discard()
            raise
        if rewriter is not None:
            shapes = {name: value.shape for name, value in model.state_dict().items()}
            left = [block.index for block in report.blocks if block.index not in report.removed_blocks]
            kept = Kept(left, len(report.blocks))
            for module in residency.onload_each(residency.outside()):
                contents = residency.contents(module)
                rewriter.add(fit_slices(contents, shapes, kept), {name: name for name in contents})
            rewriter.finish(Renumbering(container=container, removed=report.removed_blocks))
    if output is not None:
        write_other_files(source, options, model, output, reshaped=recipe.reshapes)
    return report


@dataclass(slots=True, kw_only=True)
class DiskSink:
    """Spills the tensors of an artifact to disk, and writes each pruned block to a new checkpoint.

    Attributes:
        model: the model, from which names are taken after blocks were dropped.
        residency: the offloaded weights.
        artifacts: folder that tensors are spilled to; None if no artifact is stored.
        rewriter: writes the new checkpoint, if there is one.
    """

    model: nn.Module
    residency: Offloaded
    artifacts: Path | None
    rewriter: Rewriter | None
    tensors: dict[str, Tensor] = field(default_factory=dict)
    _narrowing: tuple[Narrowing, Mapping[str, Tensor]] | None = None

    def store(self, name: str, tensor: Tensor) -> None:
        """Store a tensor of the artifact until its block is done."""
        self.tensors[name] = tensor

    def narrow(self, narrowing: Narrowing, kept: Mapping[str, Tensor]) -> None:
        """Write only the channels or experts that are kept."""
        self._narrowing = narrowing, kept

    def block_done(self, block: Block) -> None:
        """Move the tensors of a block to disk, and write the block."""
        if self.artifacts is None:
            self.tensors.clear()
        else:
            own = {linear.name: self.tensors[linear.name] for linear in block.linears if linear.name in self.tensors}
            # They stay in memory if nothing can be written.
            with suppress(*WRITE_ERRORS):
                self.tensors.update(spill(own, self.artifacts))
        if self.rewriter is not None:
            contents = self.residency.contents(block.module)
            stored = {new: name for name, new in self._new_names(block)}
            written = {new: contents[name] for new, name in stored.items()}
            self.rewriter.leave_out(contents.keys() - {*stored.values()})
            if self._narrowing is not None:
                narrowing, kept = self._narrowing
                left = [*narrowing.narrowed(block, contents, kept)]
                written, stored = {new: one for _, new, one in left}, {new: old for old, new, _ in left}
                self.rewriter.leave_out(contents.keys() - {*stored.values()})
            self.rewriter.add(written, stored)
        trim_heap()

    def _new_names(self, block: Block) -> Iterator[tuple[str, str]]:
        """Yield the stored and the new name of the tensors that a block has once others were dropped."""
        names = {module: name for name, module in self.model.named_modules()}
        container = block.name.rpartition(".")[0]
        for slot in self.residency.slots[block.module]:
            # Adapters of a dropped block are in no module.
            for stored, linear in slot.stored.items() if slot.module in names else ():
                if not stored.startswith(f"{container}."):
                    yield stored, stored
                elif linear is None:
                    yield stored, f"{names[slot.module]}.{slot.name}"
                else:
                    yield stored, f"{names[block.module]}{stored.removeprefix(block.name)}"
