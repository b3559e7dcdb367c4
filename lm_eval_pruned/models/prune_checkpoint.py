"""A checkpoint pruned without the harness: what `lm-eval-pruned prune` writes, and what an engine is given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from transformers import GenerationConfig

from lm_eval_pruned.config import PruneConfig, RunConfig
from lm_eval_pruned.models.traces import checkpoint_calibration, trace_questions
from lm_eval_pruned.pruning.artifacts.report import PruneReport, Stopwatch
from lm_eval_pruned.pruning.artifacts.store import artifacts_folder
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.calibration.source import check_source, is_traces
from lm_eval_pruned.pruning.checkpoint.diagnose import explained
from lm_eval_pruned.pruning.checkpoint.resolve import (
    copy_generation_config,
    load_checkpoint,
    resolve_pretrained,
    windows_for,
)
from lm_eval_pruned.pruning.engine import Calibration, prune_model
from lm_eval_pruned.pruning.offloaded import open_parts, prune_parts
from lm_eval_pruned.pruning.recipe import Recipe, resolve


def prune_pretrained(
    pretrained: str,
    config: PruneConfig,
    run: RunConfig,
    *,
    dtype: str,
    device: str,
    loading: Mapping[str, object],
    output: Path | None = None,
) -> PruneReport:
    """Prune a checkpoint, write it to the folder `output` if one is given, and return the report counted from it.

    Weights are read, pruned and written part by part wherever that can be done, so that the model need not fit into
    memory; `loading` goes to transformers.

    Raises:
        PrunedEvalError: whatever is wrong with the settings, the model or the calibration data.
    """
    recipe = resolve(config)
    calib = recipe.config.calib
    check_source(calib)
    source = resolve_pretrained(pretrained)
    questions = trace_questions(calib, source) if recipe.needs_calibration and calib and is_traces(calib) else []
    artifacts = artifacts_folder(run.artifacts)
    stopwatch = Stopwatch()
    revision = str(loading.get("revision") or "main")
    if not questions and not needs_whole(recipe, loading):
        with stopwatch.phase("load"), explained(source, revision=revision):
            opened = open_parts(source, dtype=dtype, device=device, loading=loading)
        if opened is not None:
            text = None
            if recipe.needs_calibration:
                text = windows_for(recipe.config, source, opened.model.config, opened.tokenizer)
            report = prune_parts(opened, config, text, artifacts=artifacts, output=output, stopwatch=stopwatch)
            if output is not None:
                copy_generation_config(source, output, revision=revision)
            return report
    with stopwatch.phase("load"), explained(source, revision=revision):
        checkpoint = load_checkpoint(source, dtype=dtype, device=device, loading=loading)
    windows: Windows | Calibration | None = None
    if questions:
        windows = checkpoint_calibration(checkpoint, config, questions, thinking=run.thinking)
    elif recipe.needs_calibration:
        windows = windows_for(recipe.config, source, checkpoint.model.config, checkpoint.tokenizer)
    report = prune_model(checkpoint.model, config, windows, artifacts=artifacts, stopwatch=stopwatch)
    if output is not None:
        # Whatever it is, this one can be written.
        checkpoint.model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        checkpoint.model.save_pretrained(output)
        checkpoint.tokenizer.save_pretrained(output)
        copy_generation_config(source, output, revision=revision)
    return report


def needs_whole(recipe: Recipe, loading: Mapping[str, object]) -> bool:
    """Tell what cannot go part by part, whatever the checkpoint is like.

    Gradients run through the whole model, and code of its own saves itself along with it.
    """
    return recipe.needs_gradients or bool(loading.get("trust_remote_code"))
