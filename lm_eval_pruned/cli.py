"""The `lm-eval-pruned` command: one subcommand a file of lm_eval_pruned/commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lm_eval_pruned import __version__
from lm_eval_pruned.commands import list as list_command
from lm_eval_pruned.commands import plan, prune, run
from lm_eval_pruned.console import error_line
from lm_eval_pruned.errors import PrunedEvalError

PROGRAM = "lm-eval-pruned"
COMMANDS = (run, prune, plan, list_command)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="What does pruning do to a reasoning model's test-time scaling?",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 2 for a mistake in what the user gave."""
    args = build_parser().parse_args(argv)
    try:
        code: int = args.main(args)
    except PrunedEvalError as error:
        sys.stderr.write(error_line(PROGRAM, str(error)))
        return 2
    return code
