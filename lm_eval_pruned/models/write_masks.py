"""Prune a checkpoint and write its masks alone, as one file to share."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lm_eval_pruned.config import RunConfig
from lm_eval_pruned.errors import ArgumentError, DataError
from lm_eval_pruned.models.prune_checkpoint import prune_pretrained
from lm_eval_pruned.pruning.artifacts.apply import can_stream
from lm_eval_pruned.pruning.artifacts.report import PruneReport
from lm_eval_pruned.pruning.artifacts.store import SCORES, Artifact, Store, artifacts_folder
from lm_eval_pruned.pruning.checkpoint.mask_file import write_mask_file
from lm_eval_pruned.pruning.checkpoint.reader import Shards
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions, resolve_pretrained
from lm_eval_pruned.pruning.recipe import Recipe


def check_has_masks(recipe: Recipe) -> None:
    """Check that a recipe removes weights and changes no other.

    Raises:
        ArgumentError: it does not.
    """
    if recipe.method is None or recipe.reshapes or recipe.method.solves:
        reason = "takes weights out of the model" if recipe.reshapes else "changes the weights that stay"
        what = "removes nothing" if recipe.method is None else reason
        raise ArgumentError(
            f"--masks-only with method={recipe.config.method}, which {what}: give another method, or leave it out to "
            "write a checkpoint"
        )


def write_masks(pretrained: str, recipe: Recipe, run: RunConfig, options: LoadOptions, output: Path) -> PruneReport:
    """Prune a checkpoint, write a mask file, and return the report.

    Args:
        pretrained: hub id, folder, or the bundled model.
        recipe: how it is pruned.
        run: thinking format for traces, and the artifact cache.
        options: how it is loaded.
        output: file to write.

    Raises:
        PrunedEvalError: something is wrong with the settings, the model or the calibration data, or the checkpoint has
            no safetensors with the names of the model.
    """
    check_has_masks(recipe)
    kept = artifacts_folder(run.artifacts)
    with TemporaryDirectory() if kept is None else nullcontext(str(kept)) as folder:
        report = prune_pretrained(pretrained, recipe, replace(run, artifacts=folder), options)
        stored = Store(folder=Path(folder)).read(report.fingerprint)
        if stored is None:
            raise DataError(f"the masks could not be kept in {folder}: make room, or give another folder as artifacts=")
        masks = {name: mask for name, mask in stored.tensors.items() if name != SCORES}
        shards = Shards.open(resolve_pretrained(pretrained), revision=options.revision, subfolder=options.subfolder)
        if not can_stream(masks, shards.files):
            raise DataError(
                f"{pretrained} has no safetensors, or names its matrices differently from the model, so that masks "
                "cannot be found in it: leave --masks-only out"
            )
        dense = shards.on_meta()
        stated = str(dense[f"{next(iter(masks))}.weight"].dtype).removeprefix("torch.")
        write_mask_file(
            output,
            Artifact(report.as_dict(), masks),
            shapes={name: weight.shape for name, weight in dense.items()},
            model=pretrained,
            dtype=stated if options.dtype == "auto" else options.dtype,
        )
    return report
