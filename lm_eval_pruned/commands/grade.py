"""`lm-eval-pruned grade`: grade the answers of a JSONL file; each input row gives one output row, even if malformed."""

from __future__ import annotations

import argparse
import json
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from lm_eval_pruned.commands import Subparsers
from lm_eval_pruned.commands.audit import GRADERS, Audit, check_grader
from lm_eval_pruned.commands.grade_rows import MAX_LINE_BYTES, GradedRow, grade_line
from lm_eval_pruned.commands.math_verify import MathVerify
from lm_eval_pruned.errors import ArgumentError, DataError, MissingDataError
from lm_eval_pruned.files import numbered_lines
from lm_eval_pruned.grading.answer_kinds import check_kind
from lm_eval_pruned.grading.modes import DEFAULT, MODES

STANDARD = "-"
_LIST = re.compile(rb"\s*\[\s*\{")
_HEAD_BYTES = 64
_EXPECTED = 'A row is {"gold": "5", "response": "So it is 5."}, or one of samples_*.jsonl of lm_eval --log_samples'


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand `grade` and its flags."""
    parser = subparsers.add_parser(
        "grade",
        help="judge the answers of a JSONL file",
        description='Rows are {"gold": ..., "response": ...} or {"gold": ..., "answer": ...}, an answer already '
        'extracted that is read where there is no response; "kind" is optional, and gold may be a list of which any '
        "counts. Each row comes back with extracted, correct, reason and status. Rows of samples_*.jsonl of lm_eval "
        "give one row for each response.",
        allow_abbrev=False,
    )
    parser.add_argument("files", nargs="+", metavar="FILE.jsonl", help="rows to grade; - is stdin")
    parser.add_argument("--output", metavar="OUT.jsonl", help="file to write anew; - is stdout; needed without --audit")
    parser.add_argument("--mode", default=DEFAULT, help=f"whose rules: {', '.join(MODES)} [{DEFAULT}]")
    parser.add_argument("--kind", help="math, choice or brackets, for rows that name none [math]")
    parser.add_argument("--audit", metavar="GRADER", help=f"print where another grader differs: {', '.join(GRADERS)}")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Grade and write row by row, so that a killed run keeps its output; then print a summary on stderr.

    Raises:
        UnknownNameError: there is no such mode, kind or grader to audit with.
        ArgumentError: the output is the input, or there is none.
        MissingPackageError: the grader to audit with is not installed.
        MissingDataError, DataError: an input cannot be opened or read, no row of it can be graded, or the output cannot
            be written.
    """
    # The lookup raises UnknownNameError if there is no such mode.
    MODES[args.mode]
    if args.kind is not None:
        check_kind(args.kind)
    if args.audit is not None:
        check_grader(args.audit)
    elif args.output is None:
        raise ArgumentError("--output is missing: give a file, or - for stdout; only --audit prints without it")
    statuses: Counter[str] = Counter()
    correct, problems = 0, []
    for name in args.files:
        with _open_input(name) as source:
            if args.output is not None:
                _check_distinct(source, name, args.output)
    with ExitStack() as stack:
        audit = None
        if args.audit is not None:
            peer = stack.enter_context(MathVerify())
            audit = Audit(peer, sys.stderr if args.output == STANDARD else sys.stdout)
        target = None if args.output is None else stack.enter_context(_open_output(args.output))
        for graded in _grade_files(args):
            line = audit.add(graded) if audit else graded.line
            if target:
                _write(target, line, args.output)
            statuses[graded.verdict.status] += 1
            correct += graded.verdict.correct
            if not graded.is_read:
                problems.append(graded.verdict.reason)
    sys.stderr.write(summary(statuses, correct) + "\n" + (audit.rates() + "\n" if audit else ""))
    if statuses and len(problems) == statuses.total():
        raise DataError(f"no row can be graded, the first: {problems[0]}. {_EXPECTED}")
    return 0


def _grade_files(args: argparse.Namespace) -> Iterator[GradedRow]:
    """Grade all rows; of rows of the harness, those of the first filter, since all filters have the same responses."""
    for name in args.files:
        kept = None
        with _open_input(name) as source:
            for number, line in _read(source, name):
                for graded in grade_line(line, number, mode=args.mode, kind=args.kind):
                    kept = graded.filter if kept is None else kept
                    if graded.filter in (None, kept):
                        yield graded


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


def _check_distinct(source: BinaryIO, name: str, output: str) -> None:
    """Refuse an output that is the input file, even under another name; opening it would empty it.

    Raises:
        ArgumentError: they are the same file.
    """
    try:
        read = os.fstat(source.fileno())
        written = os.fstat(sys.stdout.fileno()) if output == STANDARD else Path(output).stat()
    except (OSError, ValueError):
        # An output that does not exist yet, or has no descriptor, is not the input.
        return
    if stat.S_ISREG(read.st_mode) and os.path.samestat(read, written):
        raise ArgumentError(f"--output {output!r} is the input {name!r} itself: give another file")


def _read(source: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    try:
        is_list = source.seekable() and name != STANDARD and _LIST.match(source.read(_HEAD_BYTES))
        if name != STANDARD and source.seekable():
            source.seek(0)
        if is_list:
            # Up to 0.4.2 the harness wrote samples as one list.
            with suppress(ValueError, RecursionError):
                rows = json.load(source)
                yield from ((number, json.dumps(row).encode()) for number, row in enumerate(rows, start=1))
                return
            source.seek(0)
        yield from numbered_lines(source, max_bytes=MAX_LINE_BYTES)
    except OSError as error:
        raise DataError(f"{name!r} cannot be read: {_cause(error)}") from None


def _write(target: BinaryIO, line: bytes, name: str) -> None:
    with _writing(name):
        target.write(line)
        target.flush()


def _cause(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
