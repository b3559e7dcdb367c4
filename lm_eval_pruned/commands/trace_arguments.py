"""What `diverge` and `map` share: flags of `prune`, traces and an output folder, and the way results are written."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_pruned.commands import Subparsers
from lm_eval_pruned.commands.flags import add_checkpoint_flags, add_config_flags
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.files import write_atomically

if TYPE_CHECKING:
    from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions


def add_traces_parser(
    subparsers: Subparsers, name: str, main: Callable[[argparse.Namespace], int], *, help_: str, description: str
) -> argparse.ArgumentParser:
    """Declare a subcommand that prunes a checkpoint and runs it along traces, and return its parser."""
    parser = subparsers.add_parser(name, help=help_, description=description, allow_abbrev=False)
    add_checkpoint_flags(parser)
    parser.add_argument(
        "--traces",
        required=True,
        nargs="+",
        type=Path,
        metavar="PLACE",
        help="samples_*.jsonl of a dense run with --log_samples, a response store (responses.sqlite), or folders",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for the result")
    add_config_flags(parser)
    parser.set_defaults(main=main)
    return parser


def make_folder(folder: Path) -> None:
    """Make the output folder before anything is computed.

    Raises:
        ArgumentError: it cannot be made, or is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"--output {folder} cannot be a folder ({error.strerror}): give another one") from None


def write_json(content: Mapping[str, object], path: Path) -> None:
    """Write a JSON file, as a whole or not at all.

    Raises:
        ArgumentError: it cannot be written.
    """
    try:
        write_atomically(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise ArgumentError(f"--output {path.parent} cannot be written: {error.strerror}") from None


def described(args: argparse.Namespace, options: LoadOptions) -> dict[str, object]:
    """Return what was compared and on which traces, as JSON values."""
    return {
        "pretrained": args.pretrained,
        "revision": options.revision,
        "dtype": options.dtype,
        "device": options.device,
        "traces": [str(place) for place in args.traces],
    }
