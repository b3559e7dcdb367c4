"""`lm-eval-pruned prune`: prune a checkpoint and write an ordinary checkpoint with a report."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from lm_eval_pruned.commands import Subparsers
from lm_eval_pruned.commands.flags import add_checkpoint_flags, add_config_flags, parse_flags
from lm_eval_pruned.config import RunConfig
from lm_eval_pruned.errors import ArgumentError, DataError, MissingPackageError, PrunedEvalError

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from lm_eval_pruned.pruning.artifacts.report import BlockReport, PruneReport
    from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions
    from lm_eval_pruned.pruning.recipe import Recipe

SCORES_FILE = "layerif_scores.npy"
SPARSITIES_FILE = "sparsities.json"
PICTURE_FILE = "allocation.png"

# Without this file a checkpoint cannot be loaded.
CONFIG = "config.json"
# Folder inside the output where files are written until all are complete.
PARTIAL = ".partial"


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand `prune`: every pruning argument of `--model_args` is a flag."""
    parser = subparsers.add_parser("prune", help="write a pruned checkpoint and its report", allow_abbrev=False)
    add_checkpoint_flags(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="new folder for the checkpoint")
    parser.add_argument(
        "--masks-only", action="store_true", help="write no weights but one file of masks, to be given as masks=FILE"
    )
    parser.add_argument(
        "--push-to-hub",
        metavar="OWNER/NAME",
        help="also upload the checkpoint, to a new repository of the Hugging Face hub",
    )
    parser.add_argument("--private", action="store_true", help="make that repository private")
    add_config_flags(parser)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Check the arguments, then load, prune, write, and upload if asked to.

    Raises:
        ArgumentError: the output folder already holds something.
        PrunedEvalError: the arguments, the model or the calibration data are invalid, or nothing can be uploaded.
    """
    from lm_eval_pruned.commands.hub import check_upload, upload
    from lm_eval_pruned.process_memory import use_huge_pages

    recipe, run, options = parse_flags(args)
    if args.output.exists() and (
        not args.output.is_dir() or any(path.name != PARTIAL for path in args.output.iterdir())
    ):
        raise ArgumentError(f"--output {args.output} already exists: give a new or an empty folder")
    if args.private and not args.push_to_hub:
        raise ArgumentError("--private is for a repository that --push-to-hub makes: give both, or leave it out")
    if args.push_to_hub:
        if args.masks_only:
            raise ArgumentError("--push-to-hub uploads checkpoints: leave it out with --masks-only")
        check_upload(args.push_to_hub, private=args.private)
    use_huge_pages()
    if args.masks_only:
        report = _write_masks(args.pretrained, recipe, run, options, args.output)
    else:
        with _completed(args.output) as folder:
            report = prune_checkpoint(args.pretrained, recipe, run, options, folder)
    print(
        f"{args.output}: {report.zero_weights} of {report.prunable_weights} prunable weights are zero "
        f"(sparsity {report.achieved_sparsity:.4f}, target {report.target_sparsity:.4g})"
    )
    if args.push_to_hub:
        print(upload(args.output, args.push_to_hub, private=args.private))
    return 0


def _write_masks(pretrained: str, recipe: Recipe, run: RunConfig, options: LoadOptions, output: Path) -> PruneReport:
    """Write a mask file under another name, and rename it when it is complete."""
    from lm_eval_pruned.models.write_masks import write_masks

    if output.suffix != ".safetensors":
        raise ArgumentError(f"--output {output} is not the name of a mask file: give one that ends in .safetensors")
    partial = output.with_name(f"{output.name}{PARTIAL}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        mode = partial.stat().st_mode
        report = write_masks(pretrained, recipe, run, options, partial)
        # safetensors makes files that only their owner can read, whatever the umask.
        partial.chmod(mode)
        partial.rename(output)
    except (OSError, SafetensorError) as error:
        raise DataError(f"--output {output} cannot be written ({error}): make room, or give another name") from error
    finally:
        partial.unlink(missing_ok=True)
    return report


@contextmanager
def _completed(output: Path) -> Iterator[Path]:
    """Yield a temporary folder inside `output`; on success its files are moved to `output`, config.json last.

    Raises:
        DataError: they cannot be written.
    """
    folder, is_new = output / PARTIAL, not output.exists()
    try:
        # Left by a run that was killed.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
        for path in sorted(folder.iterdir(), key=lambda path: path.name == CONFIG):
            path.rename(output / path.name)
    except PrunedEvalError:
        raise
    except (OSError, SafetensorError) as error:
        raise DataError(f"--output {output} cannot be written ({error}): make room, or give another folder") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if is_new:
            with suppress(OSError):
                # Fails if it holds the finished files.
                output.rmdir()


def prune_checkpoint(
    pretrained: str, recipe: Recipe, run: RunConfig, options: LoadOptions, output: Path
) -> PruneReport:
    """Prune a checkpoint, write it with its report and its model card to `output`, and return the report.

    Args:
        pretrained: hub id, folder, or the bundled model.
        recipe: how it is pruned.
        run: thinking format for traces, and the artifact cache.
        options: how it is loaded.
        output: folder for the pruned checkpoint.
    """
    import numpy as np

    from lm_eval_pruned.commands.plot_allocation import title_of
    from lm_eval_pruned.models.prune_checkpoint import prune_pretrained
    from lm_eval_pruned.pruning.checkpoint.card import inherited_data, model_card
    from lm_eval_pruned.pruning.checkpoint.note import write_note
    from lm_eval_pruned.pruning.checkpoint.other_files import CARD_FILE
    from lm_eval_pruned.pruning.checkpoint.resolve import checkpoint_folder, resolve_pretrained

    report = prune_pretrained(pretrained, recipe, run, options, output=output)
    write_note(report, output, original=pretrained, revision=options.revision)
    if report.scores is not None:
        np.save(output / SCORES_FILE, report.scores, allow_pickle=False)
    if recipe.searches_sparsities:
        # One group: what is out of scope or excluded has a target of 0.
        sparsities = [max(block.attn, block.mlp) for block in report.blocks]
        (output / SPARSITIES_FILE).write_text(json.dumps(sparsities) + "\n", encoding="utf-8")
    is_drawn = draw_beside(report.blocks, output, title=title_of(report.config, report.target_sparsity))
    source = checkpoint_folder(resolve_pretrained(pretrained), revision=options.revision)
    card = model_card(
        report,
        original=pretrained,
        revision=options.revision,
        inherited=inherited_data([source / options.subfolder, source]),
        picture=PICTURE_FILE if is_drawn else None,
    )
    card.save(output / CARD_FILE)
    return report


def draw_beside(blocks: Sequence[BlockReport], folder: Path, *, title: str) -> bool:
    """Plot the sparsities into a folder, and return whether it could: without matplotlib it only warns."""
    from lm_eval_pruned.commands.plot_allocation import draw_allocation

    try:
        draw_allocation(blocks, folder / PICTURE_FILE, title=title)
    except MissingPackageError as error:
        logger.warning("%s was not written: %s", PICTURE_FILE, error)
        return False
    return True
