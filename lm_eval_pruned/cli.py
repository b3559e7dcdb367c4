"""The `lm-eval-pruned` command line; each file of lm_eval_pruned/commands is one subcommand."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from lm_eval_pruned import __version__
from lm_eval_pruned.commands import baseline, card, check, diverge, grade, leaderboard, plan, prune, run, sweep
from lm_eval_pruned.commands import list as list_command
from lm_eval_pruned.commands import map as map_command
from lm_eval_pruned.errors import PrunedEvalError, error_line

PROGRAM = "lm-eval-pruned"
COMMANDS = (run, prune, plan, diverge, map_command, grade, sweep, leaderboard, card, baseline, check, list_command)

# The exit code a shell reports for a program ended by SIGPIPE, as most are when the reader of their output leaves.
BROKEN_PIPE = 141
# The exit code it reports for a program ended by Ctrl-C.
INTERRUPTED = 130
# How the operating system refuses a path, also one that is only asked for: no command has to expect this everywhere.
_REFUSED_PATHS = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser with all subcommands."""
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
    """Run the command line and return its exit code: 2 for a mistake in what the user gave, 130 after Ctrl-C.

    If the reader of stdout leaves early, as `head` does, the command ends silently.
    """
    try:
        try:
            return _run(argv)
        finally:
            # Flush here, where a failure can be caught, and not at the exit of the interpreter.
            sys.stdout.flush()
    except OSError:
        failure = _stdout_failure()
        if failure is None:
            raise
        # The interpreter flushes once more when it exits, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(failure, BrokenPipeError):
            return BROKEN_PIPE
        sys.stderr.write(error_line(PROGRAM, f"stdout cannot be written: {failure.strerror}"))
        return 2


def _run(argv: Sequence[str] | None) -> int:
    args = build_parser().parse_args(argv)
    try:
        code: int = args.main(args)
    except PrunedEvalError as error:
        sys.stderr.write(error_line(PROGRAM, str(error)))
        return 2
    except OSError as refusal:
        if refusal.filename is None or refusal.errno not in _REFUSED_PATHS:
            raise
        sys.stderr.write(error_line(PROGRAM, f"{refusal.filename} cannot be opened: {refusal.strerror}"))
        return 2
    except KeyboardInterrupt as interrupt:
        sys.stderr.write(f"{PROGRAM}: {': '.join(['interrupted', *map(str, interrupt.args)])}\n")
        return INTERRUPTED
    return code


def _stdout_failure() -> OSError | None:
    """Return the error that writing an empty line to stdout raises, or None if stdout works."""
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError as error:
        return error
    return None
