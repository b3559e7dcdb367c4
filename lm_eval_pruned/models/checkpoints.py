"""A checkpoint pruned without the harness: what `lm-eval-pruned prune` writes, and what an engine is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from lm_eval_pruned.config import PruneConfig, RunConfig
from lm_eval_pruned.models.traces import checkpoint_calibration, trace_questions
from lm_eval_pruned.pruning.activations import Windows
from lm_eval_pruned.pruning.artifact import artifacts_folder
from lm_eval_pruned.pruning.calibration import check_source, is_traces
from lm_eval_pruned.pruning.checkpoint import Checkpoint, load_checkpoint, resolve_pretrained, windows_for
from lm_eval_pruned.pruning.engine import Calibration, prune_model
from lm_eval_pruned.pruning.loading import explained
from lm_eval_pruned.pruning.recipe import resolve
from lm_eval_pruned.pruning.report import PruneReport, Stopwatch


class Pruned(NamedTuple):
    """A pruned model with its tokenizer, and the report counted from it."""

    checkpoint: Checkpoint
    report: PruneReport


def prune_pretrained(
    pretrained: str, config: PruneConfig, run: RunConfig, *, dtype: str, device: str, loading: Mapping[str, object]
) -> Pruned:
    """Load a checkpoint and prune it; `loading` goes to transformers.

    Raises:
        PrunedEvalError: whatever is wrong with the settings, the model or the calibration data.
    """
    recipe = resolve(config)
    calib = recipe.config.calib
    check_source(calib)
    source = resolve_pretrained(pretrained)
    questions = trace_questions(calib, source) if recipe.needs_calibration and calib and is_traces(calib) else []
    stopwatch = Stopwatch()
    with stopwatch.phase("load"), explained(source, revision=str(loading.get("revision") or "main")):
        checkpoint = load_checkpoint(source, dtype=dtype, device=device, loading=loading)
    windows: Windows | Calibration | None = None
    if questions:
        windows = checkpoint_calibration(checkpoint, config, questions, thinking=run.thinking)
    elif recipe.needs_calibration:
        windows = windows_for(recipe.config, source, checkpoint.model.config, checkpoint.tokenizer)
    artifacts = artifacts_folder(run.artifacts)
    return Pruned(checkpoint, prune_model(checkpoint.model, config, windows, artifacts=artifacts, stopwatch=stopwatch))
