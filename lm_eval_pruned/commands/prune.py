"""`lm-eval-pruned prune`: prune a checkpoint once and write a normal checkpoint with its report."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from lm_eval_pruned.commands import Subparsers
from lm_eval_pruned.config import DESCRIPTIONS, PruneConfig, choices, parse_model_args
from lm_eval_pruned.errors import ArgumentError

REPORT_FILE = "pruning_report.json"


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command: every pruning argument of `--model_args` is a flag."""
    parser = subparsers.add_parser("prune", help="write a pruned checkpoint and its report", allow_abbrev=False)
    parser.add_argument("--pretrained", required=True, metavar="MODEL", help="hub id, folder, or tiny-reasoner")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="new folder for the checkpoint")
    parser.add_argument("--dtype", default="auto", help="dtype to load and save in (default: that of the checkpoint)")
    parser.add_argument("--device", default="cpu", help="device to prune on (default: cpu)")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a hub model")
    parser.add_argument("--trust_remote_code", action="store_true", help="run code that comes with the checkpoint")
    add_config_flags(parser)
    parser.set_defaults(main=main)


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Add one flag for every field of PruneConfig; values are checked by PruneConfig itself."""
    group = parser.add_argument_group("pruning")
    for field in fields(PruneConfig):
        allowed = choices(PruneConfig, field.name)
        listed = f" ({', '.join(allowed)})" if allowed else ""
        default = "" if field.default is None else f" [{field.default}]"
        metavar = field.name.rpartition("_")[2].upper()
        group.add_argument(f"--{field.name}", metavar=metavar, help=DESCRIPTIONS[field.name] + listed + default)


def main(args: argparse.Namespace) -> int:
    """Check the arguments, then load, prune and write.

    Raises:
        ArgumentError: the output folder already holds something.
        PrunedEvalError: whatever is wrong with the arguments, the model or the calibration data.
    """
    names = {field.name for field in fields(PruneConfig)}
    config = parse_model_args({name: getattr(args, name) for name in names}, parent=()).prune
    if args.output.exists() and (not args.output.is_dir() or any(args.output.iterdir())):
        raise ArgumentError(f"--output {args.output} already exists: give a new or an empty folder")
    report = prune_checkpoint(
        args.pretrained,
        config,
        args.output,
        dtype=args.dtype,
        device=args.device,
        loading={"revision": args.revision, "trust_remote_code": args.trust_remote_code},
    )
    print(
        f"{args.output}: {report['zero_weights']} of {report['prunable_weights']} prunable weights are zero "
        f"(sparsity {report['achieved_sparsity']:.4f}, target {report['target_sparsity']})"
    )
    return 0


def prune_checkpoint(
    pretrained: str,
    config: PruneConfig,
    output: Path,
    *,
    dtype: str,
    device: str,
    loading: Mapping[str, object],
) -> dict[str, object]:
    """Load a checkpoint, prune it, write it to `output` and return the report written beside it."""
    from lm_eval_pruned.pruning.calibration import check_source
    from lm_eval_pruned.pruning.checkpoint import load_checkpoint, resolve_pretrained, windows_for
    from lm_eval_pruned.pruning.engine import prune_model, resolve
    from lm_eval_pruned.pruning.report import Stopwatch

    recipe = resolve(config)
    check_source(config.calib)
    source = resolve_pretrained(pretrained)
    stopwatch = Stopwatch()
    with stopwatch.phase("load"):
        model, tokenizer = load_checkpoint(source, dtype=dtype, device=device, loading=loading)
    windows = windows_for(config, source, model.config, tokenizer) if recipe.needs_calibration else None
    report = prune_model(model, config, windows, stopwatch=stopwatch).as_dict()
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    (output / REPORT_FILE).write_text(json.dumps(report, indent=2) + "\n")
    return report
