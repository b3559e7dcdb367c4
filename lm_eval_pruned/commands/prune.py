"""`lm-eval-pruned prune`: prune a checkpoint once and write a normal checkpoint with its report."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_pruned.commands import Subparsers
from lm_eval_pruned.commands.flags import add_checkpoint_flags, add_config_flags, parse_flags
from lm_eval_pruned.config import PruneConfig, RunConfig
from lm_eval_pruned.errors import ArgumentError, MissingPackageError

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from lm_eval_pruned.pruning.activations import Windows
    from lm_eval_pruned.pruning.engine import Calibration
    from lm_eval_pruned.pruning.report import PruneReport

REPORT_FILE = "pruning_report.json"
SCORES_FILE = "layerif_scores.npy"
PICTURE_FILE = "allocation.png"


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command: every pruning argument of `--model_args` is a flag."""
    parser = subparsers.add_parser("prune", help="write a pruned checkpoint and its report", allow_abbrev=False)
    add_checkpoint_flags(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="new folder for the checkpoint")
    add_config_flags(parser)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Check the arguments, then load, prune and write.

    Raises:
        ArgumentError: the output folder already holds something.
        PrunedEvalError: whatever is wrong with the arguments, the model or the calibration data.
    """
    config, run, _ = parse_flags(args)
    if args.output.exists() and (not args.output.is_dir() or any(args.output.iterdir())):
        raise ArgumentError(f"--output {args.output} already exists: give a new or an empty folder")
    report = prune_checkpoint(
        args.pretrained,
        config,
        run,
        args.output,
        dtype=args.dtype,
        device=args.device,
        loading={"revision": args.revision, "trust_remote_code": args.trust_remote_code},
    )
    print(
        f"{args.output}: {report.zero_weights} of {report.prunable_weights} prunable weights are zero "
        f"(sparsity {report.achieved_sparsity:.4f}, target {report.target_sparsity:.4g})"
    )
    return 0


def prune_checkpoint(
    pretrained: str,
    config: PruneConfig,
    run: RunConfig,
    output: Path,
    *,
    dtype: str,
    device: str,
    loading: Mapping[str, object],
) -> PruneReport:
    """Load a checkpoint, prune it, write it to `output` and return the report written beside it."""
    import numpy as np

    from lm_eval_pruned.models.traces import checkpoint_calibration, trace_questions
    from lm_eval_pruned.pruning.artifact import artifacts_folder
    from lm_eval_pruned.pruning.calibration import check_source, is_traces
    from lm_eval_pruned.pruning.checkpoint import load_checkpoint, resolve_pretrained, windows_for
    from lm_eval_pruned.pruning.engine import prune_model
    from lm_eval_pruned.pruning.picture import draw_allocation, title_of
    from lm_eval_pruned.pruning.recipe import resolve
    from lm_eval_pruned.pruning.report import Stopwatch

    recipe = resolve(config)
    calib = recipe.config.calib
    check_source(calib)
    source = resolve_pretrained(pretrained)
    questions = trace_questions(calib, source) if recipe.needs_calibration and calib and is_traces(calib) else []
    stopwatch = Stopwatch()
    with stopwatch.phase("load"):
        checkpoint = load_checkpoint(source, dtype=dtype, device=device, loading=loading)
    model, tokenizer = checkpoint
    windows: Windows | Calibration | None = None
    if questions:
        windows = checkpoint_calibration(checkpoint, config, questions, thinking=run.thinking)
    elif recipe.needs_calibration:
        windows = windows_for(recipe.config, source, model.config, tokenizer)
    report = prune_model(model, config, windows, artifacts=artifacts_folder(run.artifacts), stopwatch=stopwatch)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    (output / REPORT_FILE).write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    if report.scores is not None:
        np.save(output / SCORES_FILE, report.scores, allow_pickle=False)
    try:
        draw_allocation(report.blocks, output / PICTURE_FILE, title=title_of(report.config, report.target_sparsity))
    except MissingPackageError as error:
        # The checkpoint is complete without its picture.
        logger.warning("%s was not written: %s", PICTURE_FILE, error)
    return report
