"""`lm-eval-pruned baseline`: store accepted runs, with the outcome of every question, for `check` to compare with."""

from __future__ import annotations

import argparse
from pathlib import Path

from lm_eval_pruned.commands import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand `baseline` and its flags."""
    parser = subparsers.add_parser(
        "baseline",
        help="freeze accepted runs for check",
        description="Reads results of lm_eval --log_samples, merges runs that differ in their seeds alone, and writes "
        "what happened to each question.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "places", nargs="+", type=Path, metavar="DIR", help="folders with results of lm_eval, Inspect or lighteval"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.json", help="the baseline")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Read the runs, merge their seeds and write the baseline.

    Raises:
        PrunedEvalError: there is no run with outcomes, or the file cannot be written.
    """
    from lm_eval_pruned.results.gate.baseline_file import IGNORED, dump_baseline
    from lm_eval_pruned.results.labels import line_names
    from lm_eval_pruned.results.measurement import measure
    from lm_eval_pruned.results.output import warn_skipped, write_text
    from lm_eval_pruned.results.records.reading import read_records
    from lm_eval_pruned.results.reference import why_no_outcomes

    records, problems = read_records(args.places)
    measurements = measure(records, ignoring=IGNORED)
    unknown = {key: name for key, name in line_names(measurements).items() if measurements[key].outcomes is None}
    warn_skipped(problems)
    for key, name in unknown.items():
        print(f"left out: the {key.metric} of {name}: {why_no_outcomes(measurements, key)}")
    write_text(args.output, dump_baseline(measurements))
    print(f"{args.output}: {len(measurements) - len(unknown)} measurements of {len(records)} runs")
    return 0
