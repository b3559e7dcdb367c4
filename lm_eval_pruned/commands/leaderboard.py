"""`lm-eval-pruned leaderboard`: put many runs into one table or page, each compared with the dense run of its model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_pruned.commands import Subparsers
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.results.eee import FILE, FOLDER

if TYPE_CHECKING:
    from lm_eval_pruned.results.leaderboard.write import Written

ENDINGS = (".html", ".md", ".csv", ".json")
RECORDS = (FILE, FOLDER)


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand `leaderboard` and its flags."""
    parser = subparsers.add_parser(
        "leaderboard",
        help="put runs in one page or table, with intervals and paired differences to dense",
        description="Reads results of lm_eval, of any model type, and of Inspect and lighteval. Runs that differ in "
        "their seeds alone are merged.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "places", nargs="+", type=Path, metavar="DIR", help="folders with results of lm_eval, Inspect or lighteval"
    )
    endings = " ".join((*ENDINGS, *RECORDS))
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help=f"page, table, or records of Every Eval Ever (file or folder); the ending decides: {endings}",
    )
    parser.add_argument(
        "--reference", type=Path, metavar="FILE.csv", help="published rows: model, method, budget, task, acc, ..."
    )
    parser.add_argument(
        "--against", metavar="LABEL", help="compare with the run of this label instead of the dense run of each model"
    )
    parser.add_argument("--organization", metavar="NAME", help="who evaluated, for records of Every Eval Ever")
    parser.add_argument("--samples", action="store_true", help="with a folder of such records, every response as well")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Read the runs, compare them and write the leaderboard.

    Raises:
        PrunedEvalError: the format is unknown, no run can be read, or the file cannot be written.
    """
    if args.output.name.endswith(RECORDS):
        return _write_records(args)
    if args.output.suffix not in ENDINGS:
        known = ", ".join((*ENDINGS, *RECORDS))
        raise ArgumentError(f"--output {args.output} is of no known format: let it end in {known}")
    for name in ("organization", "samples"):
        if getattr(args, name):
            raise ArgumentError(f"--{name} is for records, which end in {' or '.join(RECORDS)}: leave it out")

    from lm_eval_pruned.grading.extract.extract import extract
    from lm_eval_pruned.results.leaderboard.published import read_reference
    from lm_eval_pruned.results.leaderboard.write import write

    published = read_reference(args.reference) if args.reference else []
    report(write(args.places, args.output, extract=extract, published=published, against=args.against))
    return 0


def _write_records(args: argparse.Namespace) -> int:
    from lm_eval_pruned.results.eee.model import UNKNOWN
    from lm_eval_pruned.results.eee.write import write_records
    from lm_eval_pruned.results.output import warn_skipped

    for name in ("reference", "against"):
        if getattr(args, name):
            raise ArgumentError(f"--{name} is for tables and pages: a record describes one run, so leave it out")
    if args.samples and args.output.name.endswith(FILE):
        raise ArgumentError("--samples need files of their own: give a folder, whose name ends in .eee, as --output")
    written = write_records(
        args.places, args.output, organization=args.organization or UNKNOWN, with_samples=args.samples
    )
    warn_skipped(written.problems)
    samples = f", {written.with_samples} with samples" if args.samples else ""
    print(f"{args.output}: {written.records} records of Every Eval Ever, one a run{samples}")
    return 0


def report(written: Written) -> None:
    """Print the files that were skipped on stderr, and what was written on stdout."""
    from lm_eval_pruned.results.output import warn_skipped

    warn_skipped(written.problems)
    print(f"{written.output}: {written.lines} lines from {written.runs} runs")
