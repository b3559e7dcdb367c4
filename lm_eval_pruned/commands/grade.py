"""`lm-eval-pruned grade`: grade the answers of a JSONL file; each input row gives one output row, even if malformed."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from lm_eval_pruned.commands import Subparsers
from lm_eval_pruned.commands.grade_rows import MAX_LINE_BYTES, grade_line
from lm_eval_pruned.errors import ArgumentError, DataError, MissingDataError
from lm_eval_pruned.files import numbered_lines
from lm_eval_pruned.grading.answer_kinds import check_kind
from lm_eval_pruned.grading.modes import DEFAULT, MODES, check_mode

STANDARD = "-"


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand `grade` and its flags."""
    parser = subparsers.add_parser(
        "grade",
        help="judge the answers of a JSONL file",
        description='Rows are {"gold": ..., "response": ...} or {"gold": ..., "answer": ...}, an answer already '
        'extracted that is read where there is no response; "kind" is optional, and gold may be a list of which any '
        "counts. Each row comes back with extracted, correct, reason and status.",
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE.jsonl", help="rows to grade; - is stdin")
    parser.add_argument("--output", required=True, metavar="OUT.jsonl", help="file to write anew; - is stdout")
    parser.add_argument("--mode", default=DEFAULT, help=f"whose rules: {', '.join(MODES)} [{DEFAULT}]")
    parser.add_argument("--kind", default="math", help="math or choice, for rows that name none [math]")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Grade and write row by row, so that a killed run keeps its output; then print a summary on stderr.

    Raises:
        UnknownNameError: there is no such mode or kind.
        ArgumentError: the output is the input.
        MissingDataError, DataError: the input cannot be opened or read, or the output cannot be written.
    """
    check_mode(args.mode)
    check_kind(args.kind)
    statuses: Counter[str] = Counter()
    correct = 0
    with _open_input(args.file) as source:
        _check_distinct(source, args)
        with _open_output(args.output) as target:
            for number, line in _read(source, args.file):
                verdict, graded = grade_line(line, number, mode=args.mode, kind=args.kind)
                _write(target, graded, args.output)
                statuses[verdict.status] += 1
                correct += verdict.correct
    sys.stderr.write(summary(statuses, correct) + "\n")
    return 0


def summary(statuses: Counter[str], correct: int) -> str:
    """Return the numbers of rows, of correct ones, and of rows with each status.

    Example:
        >>> summary(Counter(ok=9, unparsed=1), 6)
        '10 rows, 6 correct; status: 9 ok, 1 unparsed'
    """
    listed = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    return f"{statuses.total()} rows, {correct} correct" + (f"; status: {listed}" if listed else "")


def _open_input(name: str) -> AbstractContextManager[BinaryIO]:
    if name == STANDARD:
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(name).open("rb")
    except (OSError, ValueError) as error:
        raise MissingDataError(f"{name!r} cannot be opened: {_cause(error)}") from None


@contextmanager
def _open_output(name: str) -> Iterator[BinaryIO]:
    if name == STANDARD:
        yield sys.stdout.buffer
        return
    with _writing(name):
        file = Path(name).open("wb")  # noqa: SIM115
    try:
        yield file
    except BaseException:
        # Closing would only repeat why the last row could not be written.
        with suppress(OSError):
            file.close()
        raise
    with _writing(name):
        file.close()


@contextmanager
def _writing(name: str) -> Iterator[None]:
    """Turn an error of writing an output file into a message; errors of stdout are left to the command line."""
    try:
        yield
    except (OSError, ValueError) as error:
        if name == STANDARD:
            raise
        raise DataError(f"--output {name!r} cannot be written: {_cause(error)}") from None


def _check_distinct(source: BinaryIO, args: argparse.Namespace) -> None:
    """Refuse an output that is the input file, even under another name; opening it would empty it.

    Raises:
        ArgumentError: they are the same file.
    """
    try:
        read = os.fstat(source.fileno())
        written = os.fstat(sys.stdout.fileno()) if args.output == STANDARD else Path(args.output).stat()
    except (OSError, ValueError):
        # An output that does not exist yet, or has no descriptor, is not the input.
        return
    if stat.S_ISREG(read.st_mode) and os.path.samestat(read, written):
        raise ArgumentError(f"--output {args.output!r} is the input {args.file!r} itself: give another file")


def _read(source: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    try:
        yield from numbered_lines(source, max_bytes=MAX_LINE_BYTES)
    except OSError as error:
        raise DataError(f"{name!r} cannot be read: {_cause(error)}") from None


def _write(target: BinaryIO, line: bytes, name: str) -> None:
    with _writing(name):
        target.write(line)
        target.flush()


def _cause(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
