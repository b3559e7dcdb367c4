"""`lm-eval-pruned plan`: predict sparsities, memory and time of pruning from the checkpoint's config alone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_pruned.commands import Subparsers
from lm_eval_pruned.commands.flags import add_checkpoint_flags, add_config_flags, parse_flags
from lm_eval_pruned.commands.prune import PICTURE_FILE, draw_beside
from lm_eval_pruned.errors import ArgumentError

if TYPE_CHECKING:
    from lm_eval_pruned.planning.plan import Plan
    from lm_eval_pruned.planning.throughput import Estimate
    from lm_eval_pruned.pruning.artifacts.report import BlockReport
    from lm_eval_pruned.pruning.model.decoder import Excluded
    from lm_eval_pruned.pruning.model.shapes import WindowShape

PLAN_FILE = "plan.json"

# The kinds of operations under the names that plan.json has had from the first.
RATES: Mapping[str, str] = {
    "matmul_flops": "products",
    "fp32_matmul_flops": "precise",
    "elementwise": "elements",
    "sorted": "ranked",
    "solved": "eliminated",
    "svd_flops": "decomposed",
}
MEMORY: Mapping[str, str] = {
    "process": "Python and its libraries",
    "stored": "weights as stored, while converted",
    "weights": "weights",
    "part": "weights of two parts",
    "hidden_states": "hidden states of all windows",
    "block": "one block at work",
    "masks": "masks",
    "gradients": "summed gradients",
    "copy": "dense copy of the prunable weights",
    "inputs": "inputs of blocks",
    "activations": "activations of one window",
}


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand `plan`, whose flags are those of `prune`."""
    parser = subparsers.add_parser("plan", help="what prune would do, need and take", allow_abbrev=False)
    add_checkpoint_flags(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help=f"folder for {PLAN_FILE} and {PICTURE_FILE}")
    add_config_flags(parser)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Check the arguments as `prune` does, then make the plan, print it and optionally write it.

    Raises:
        ArgumentError: the output is not a folder.
        PrunedEvalError: the arguments, the checkpoint's config or the calibration data are invalid.
    """
    from lm_eval_pruned.models.checkpoint_checks import check_checkpoint, check_weights
    from lm_eval_pruned.models.prune_checkpoint import needs_whole
    from lm_eval_pruned.planning.architecture import read_architecture
    from lm_eval_pruned.planning.plan import make_plan
    from lm_eval_pruned.planning.throughput import estimate_cost
    from lm_eval_pruned.pruning.allocations.signals.influence import check_gradients
    from lm_eval_pruned.pruning.calibration.source import CheckpointInfo
    from lm_eval_pruned.pruning.checkpoint.diagnose import explained
    from lm_eval_pruned.pruning.checkpoint.meta_model import build_meta_model, stored_dtype
    from lm_eval_pruned.pruning.checkpoint.resolve import resolve_pretrained

    recipe, _, options = parse_flags(args)
    if args.output is not None and args.output.exists() and not args.output.is_dir():
        raise ArgumentError(f"--output {args.output} is not a folder: give a new or an existing one")
    source = resolve_pretrained(args.pretrained)
    calibration = recipe.calibration_source(source)
    calibration.check()
    prunes = recipe.method is not None
    check_checkpoint(source, options, prunes=prunes)
    with explained(source, revision=options.revision):
        check_weights(source, options, downloads=False)
    model = build_meta_model(source, options)
    windows = calibration.shape(CheckpointInfo.of(model.config))
    plan = make_plan(recipe, model)
    stored = stored_dtype(model.config)
    dtype = options.torch_dtype(stored)
    if recipe.needs_gradients:
        check_gradients(windows.samples, {dtype})
    whole = needs_whole(recipe, calibration, options)
    architecture = read_architecture(recipe, model, dtype, whole=whole)
    estimate = estimate_cost(recipe, architecture, windows, dtype=dtype, stored=stored, device=args.device)

    print(
        f"{args.pretrained}: {type(model).__name__} in {str(dtype).removeprefix('torch.')} on {args.device}; no weight "
        "was read"
    )
    print("\n".join([*plan_lines(plan), *estimate_lines(estimate, windows)]))
    if not whole:
        size = plan.model_weights * dtype.itemsize / 1e6
        print(f"  (prune has two blocks in memory at a time, pruned-hf all weights: {size:,.1f} MB)")
    if recipe.needs_calibration and recipe.config.calib_tokens == "thinking":
        print("  statistics are of the tokens that the model writes after each prompt")
    if calibration.needs_model:
        print("  the time in which the model writes its traces comes on top")
    if args.output is not None:
        write(plan, estimate, windows, args.output)
    return 0


def plan_lines(plan: Plan) -> Iterator[str]:
    """Yield the counts of weights, the matrices left dense, and the sparsities where they are known."""
    parts = plan.prunable_by_part
    share = plan.zero_weights / max(plan.prunable_weights, 1)
    yield "weights"
    yield f"  in the model {plan.model_weights:>20,}"
    yield f"  prunable     {plan.prunable_weights:>20,}   attention {parts['attn']:,}, MLP {parts['mlp']:,}"
    label = "will be zero" if plan.blocks else "zero, about"
    yield f"  {label:<12} {plan.zero_weights:>20,}   {share:.4f} of the prunable"
    if plan.remaining_weights not in (None, plan.model_weights):
        yield f"  {'will be left':<12} {plan.remaining_weights:>20,}   in the whole model"
    yield "matrices left alone"
    yield from _excluded_lines(plan.excluded)
    if plan.removed_blocks:
        names = ", ".join(map(str, plan.removed_blocks))
        yield "blocks"
        yield f"  {plan.dropped} of {plan.model_blocks} will go: {names}"
    elif plan.dropped:
        yield "blocks"
        yield f"  {plan.dropped} of {plan.model_blocks} will go: those found at load by {plan.config['method']}"
    elif plan.signal:
        yield "sparsity of blocks"
        yield f"  decided at load by {plan.signal.description}; {plan.target_sparsity:.4g} on average"
    else:
        yield "sparsity of blocks    attention       MLP"
        yield from _block_lines(plan.blocks)


def estimate_lines(estimate: Estimate, windows: WindowShape) -> Iterator[str]:
    """Yield the estimates of memory and time."""
    if windows.samples:
        yield "calibration"
        yield f"  {windows.samples:,} windows of {windows.seqlen:,} tokens"
    yield "peak of memory, an estimate"
    for name, size in estimate.memory_bytes.items():
        if size:
            yield f"  {MEMORY[name]:<36}{size / 1e6:>12,.1f} MB"
    yield f"  {'together':<36}{sum(estimate.memory_bytes.values()) / 1e6:>12,.1f} MB"
    yield "time on this machine without loading, an estimate from rates measured just now"
    for phase, time in estimate.seconds.items():
        yield f"  {phase:<36}{_duration(time):>15}"
    yield f"  {'together':<36}{_duration(sum(estimate.seconds.values())):>15}"


def write(plan: Plan, estimate: Estimate, windows: WindowShape, folder: Path) -> None:
    """Write the pruning plan as JSON and, where the sparsities are known, their plot.

    Args:
        plan: what will be pruned, counted.
        estimate: memory in bytes, time in seconds.
        windows: number and length of the calibration windows, in tokens.
        folder: output folder, created if missing.

    Raises:
        ArgumentError: the folder cannot be written.
    """
    from lm_eval_pruned.commands.plot_allocation import title_of

    content = {
        **plan.as_dict(),
        "calibration": windows._asdict(),
        "memory_bytes": estimate.memory_bytes,
        "seconds": estimate.seconds,
        "rates": {RATES[kind]: rate for kind, rate in estimate.throughput._asdict().items()},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PLAN_FILE).write_text(json.dumps(content, indent=2) + "\n")
        if plan.blocks:
            draw_beside(plan.blocks, folder, title=title_of(plan.config, plan.target_sparsity))
    except OSError as error:
        raise ArgumentError(f"--output {folder} cannot be written: {error.strerror}") from None


def _excluded_lines(excluded: Sequence[Excluded]) -> Iterator[str]:
    """Yield one line per reason, with the name of one matrix as an example."""
    names: dict[str, list[str]] = {}
    for item in excluded:
        names.setdefault(item.reason, []).append(item.name)
    for reason, members in names.items():
        example = members[0] if len(members) == 1 else f"{members[0]} and others"
        yield f"  {len(members):>6,}  {reason} ({example})"


def _block_lines(blocks: Sequence[BlockReport]) -> Iterator[str]:
    """Yield a line for each run of adjacent blocks with equal sparsities."""
    for (attn, mlp), run in groupby(blocks, key=lambda block: (block.attn, block.mlp)):
        indices = [block.index for block in run]
        label = f"{indices[0]}" if len(indices) == 1 else f"{indices[0]} to {indices[-1]}"
        yield f"  {label:<20}{attn:>9.4f} {mlp:>9.4f}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
