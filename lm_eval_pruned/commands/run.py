"""`lm-eval-pruned run`: run the harness's command line with our models and tasks registered explicitly."""

from __future__ import annotations

import argparse
import sys

from lm_eval_pruned.commands import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand `run`: everything after its name belongs to the harness."""
    parser = subparsers.add_parser(
        "run",
        help="the lm_eval command with the pruned models and the tts tasks registered",
        # All options, --help included, belong to the harness; no argument can begin with a NUL.
        prefix_chars="\0",
        add_help=False,
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run `lm_eval` with the given arguments, even where Python does not read .pth files (python -S, PYTHONPATH)."""
    from lm_eval_pruned import _autoload

    _autoload.install()
    from lm_eval.__main__ import cli_evaluate

    # The harness reads and edits sys.argv.
    sys.argv = ["lm_eval", *args.arguments]
    cli_evaluate()
    return 0
