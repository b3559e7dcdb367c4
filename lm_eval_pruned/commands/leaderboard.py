"""`lm-eval-pruned leaderboard`: many runs in one table, each held against the dense run of its model."""

from __future__ import annotations

import argparse
from pathlib import Path

from lm_eval_pruned.commands import Subparsers
from lm_eval_pruned.errors import ArgumentError

ENDINGS = (".html", ".md", ".csv", ".json")


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "leaderboard",
        help="put runs in one page or table, with intervals and paired differences to dense",
        description="Reads results of lm_eval, of any model type. Runs that differ in their seeds alone are merged.",
        allow_abbrev=False,
    )
    parser.add_argument("places", nargs="+", type=Path, metavar="DIR", help="folders with results of lm_eval")
    endings = " ".join(ENDINGS)
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE", help=f"page or table; its ending decides: {endings}"
    )
    parser.add_argument(
        "--reference", type=Path, metavar="FILE.csv", help="published rows: model, method, budget, task, acc, ..."
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Read, compare and write.

    Raises:
        PrunedEvalError: the format is unknown, nothing can be read, or the file cannot be written.
    """
    if args.output.suffix not in ENDINGS:
        raise ArgumentError(f"--output {args.output} is of no known format: let it end in {', '.join(ENDINGS)}")

    from lm_eval_pruned.results.leaderboard.leaderboard import entries
    from lm_eval_pruned.results.leaderboard.page.content import page_content
    from lm_eval_pruned.results.leaderboard.page.document import page
    from lm_eval_pruned.results.leaderboard.published import read_reference
    from lm_eval_pruned.results.leaderboard.tables import FORMATS
    from lm_eval_pruned.results.output import warn_skipped, write_text
    from lm_eval_pruned.results.records.reading import read_records

    references = read_reference(args.reference) if args.reference else []
    records, problems = read_records(args.places)
    board = entries(records, references)
    if args.output.suffix == ".html":
        text = page(page_content(board, records))
    else:
        text = FORMATS[args.output.suffix]([entry.line for entry in board])
    write_text(args.output, text)
    warn_skipped(problems)
    print(f"{args.output}: {len(board)} lines from {len(records)} runs")
    return 0
