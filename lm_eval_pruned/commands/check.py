"""`lm-eval-pruned check`: compare runs with a baseline; exit code 0 fine, 1 worse, 2 bad input, 3 undecided."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lm_eval_pruned.commands import Subparsers
from lm_eval_pruned.errors import ArgumentError, unknown_name

UNDECIDED = 3
FORMATS = ("text", "junit", "github")


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand `check` and its flags."""
    parser = subparsers.add_parser(
        "check",
        help="fail if runs are worse than their baseline",
        description="Exit code 0: nothing found. 1: a significant change for the worse beyond the margin, a metric of "
        "which nobody knows what worse is, another sparsity, or missing runs, tasks or questions. 2: bad input. "
        "3, with --sequential: undecided. Every line says from which size on it would have seen one.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "places", nargs="+", type=Path, metavar="DIR", help="folders with results of lm_eval, Inspect or lighteval"
    )
    parser.add_argument("--baseline", required=True, type=Path, metavar="FILE.json", help="written by baseline")
    parser.add_argument("--alpha", type=float, default=0.05, help="chance of any false alarm [0.05]")
    parser.add_argument(
        "--margin",
        type=float,
        default=0.0,
        help="change for the worse that is accepted, as the metric counts: 0.02 is two points of an accuracy [0.0]",
    )
    parser.add_argument(
        "--equivalence",
        type=float,
        metavar="MARGIN",
        help="call a line equivalent where a change for the worse of this size is excluded, and say how many questions "
        "that takes; counts as --margin does",
    )
    parser.add_argument(
        "--sequential",
        action="store_true",
        help="judge the questions asked so far, as often as you like: exit code 3 means undecided, ask more",
    )
    parser.add_argument(
        "--across", default="", metavar="SETTING[,..]", help="settings in which runs may differ from it: backend, say"
    )
    parser.add_argument(
        "--against", metavar="LABEL", help="compare every run with the run of this label in the baseline"
    )
    parser.add_argument("--format", default="text", help=f"{', '.join(FORMATS)} [text]")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report there, and the text to stdout")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Read the runs, compare them with the baseline and report.

    Raises:
        PrunedEvalError: an argument is out of range, or the baseline or all runs cannot be read.
    """
    if args.format not in FORMATS:
        raise unknown_name("format", args.format, FORMATS)
    if not 0 < args.alpha < 1:
        raise ArgumentError(f"--alpha {args.alpha} is not a chance: give 0 < alpha < 1, for example 0.05")
    if not 0 <= args.margin < 1:
        raise ArgumentError(f"--margin {args.margin} cannot be accepted: give 0 <= margin < 1; 0.02 is two points")
    if args.equivalence is not None and not 0 < args.equivalence < 1:
        raise ArgumentError(f"--equivalence {args.equivalence}: give 0 < margin < 1; 0.02 is two points")

    from lm_eval_pruned.results.gate.baseline_file import IGNORED, load_baseline
    from lm_eval_pruned.results.gate.check import Rules, check, check_against
    from lm_eval_pruned.results.gate.findings import FAILING
    from lm_eval_pruned.results.gate.reports import FORMATS as REPORTS
    from lm_eval_pruned.results.gate.reports import summary, text
    from lm_eval_pruned.results.measurement import measure, setting_names
    from lm_eval_pruned.results.output import printable, warn_skipped, write_text
    from lm_eval_pruned.results.records.configuration import SETTINGS, VERSION
    from lm_eval_pruned.results.records.reading import read_records

    stored = load_baseline(args.baseline, ignoring=())
    records, problems = read_records(args.places)
    across = [word for name in args.across.split(",") if (word := name.strip())]
    known = {*SETTINGS, *setting_names(stored), *setting_names(measure(records))}
    for name in across:
        if name not in known:
            raise unknown_name("setting in --across", name, known)
    ignoring, unknown = {*IGNORED, *across}, {VERSION} - setting_names(stored)
    baseline = load_baseline(args.baseline, ignoring=ignoring)
    measured = measure(records, ignoring=ignoring | unknown)
    rules = Rules(alpha=args.alpha, margin=args.margin, equivalence=args.equivalence, sequential=args.sequential)
    if args.against is None:
        findings = check(baseline, measured, rules)
    else:
        findings = check_against(baseline, measured, args.against, rules)
    report = REPORTS[args.format](findings)
    if args.output:
        write_text(args.output, report)
        sys.stdout.write(printable(text(findings)))
    else:
        sys.stdout.write(printable(report))
    if args.format != "text" and not args.output:
        sys.stderr.write(summary(findings) + "\n")
    warn_skipped(problems)
    if any(finding.status in FAILING for finding in findings):
        return 1
    return UNDECIDED if any(finding.status == "undecided" for finding in findings) else 0
