"""Test-time scaling at a glance: accuracy against the thinking budget, as a table and as a picture.

python -m lm_eval_pruned.results.curve DIR [--png FILE] reads every results file of the harness below DIR.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from lm_eval_pruned.console import error_line
from lm_eval_pruned.errors import DataError, MissingPackageError, PrunedEvalError
from lm_eval_pruned.results.record import Point, Record, find_results, read_record

_MARKERS = "osD^v"
_SHIFT = 1.06

_COLUMNS = ("thinking_tokens", "budget_hit", "no_answer")


def table(records: Sequence[Record]) -> str:
    """Return a plain-text table with one line for each run, benchmark and budget."""
    return "\n".join(
        [f"{'run':<24}{'task':<18}{'budget':>7}{'acc':>16}{'thinking':>10}{'cut':>7}{'no answer':>11}", *_rows(records)]
    )


def _rows(records: Sequence[Record]) -> Iterator[str]:
    for record in records:
        for task, points in record.curves.items():
            for point in points:
                tokens, cut, missing = (point.metrics.get(name, float("nan")) for name in _COLUMNS)
                yield (
                    f"{record.label:<24}{task:<18}{point.budget:>7}{_accuracy(point):>16}"
                    f"{tokens:>10.1f}{cut:>7.2f}{missing:>11.2f}"
                )


def _accuracy(point: Point) -> str:
    error = point.errors.get("acc")
    return f"{point.metrics['acc']:.3f}" + (f" ± {error:.3f}" if error is not None else "")


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw accuracy against the thinking budget, one panel a benchmark and one line a run, into a PNG.

    Raises:
        DataError: no record holds a task under a thinking budget.
        MissingPackageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullLocator, ScalarFormatter
    except ImportError:
        raise MissingPackageError("drawing needs matplotlib: pip install 'lm-eval-pruned[page]'") from None
    tasks = list(dict.fromkeys(task for record in records for task in record.curves))
    if not tasks:
        raise DataError("these runs hold no task under a thinking budget: nothing can be drawn")
    figure = Figure(figsize=(1.4 + 4.6 * len(tasks), 4.2), layout="constrained", dpi=150)
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for place, record in enumerate(records):
            points = record.curves.get(task, ())
            budgets = [point.budget for point in points]
            # Side by side, since runs that agree would hide each other.
            shift = _SHIFT ** (place - (len(records) - 1) / 2)
            axes.errorbar(
                [budget * shift for budget in budgets],
                [point.metrics["acc"] for point in points],
                [point.errors.get("acc", 0.0) for point in points],
                marker=_MARKERS[place % len(_MARKERS)],
                capsize=3,
                label=f"{record.label} ({record.sparsity:.1%} zero)",
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({point.budget for record in records for point in record.curves.get(task, ())}))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(title=task, xlabel="thinking budget (tokens)", ylabel="accuracy", ylim=(0, 1.03))
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left")
    figure.savefig(path)


def main() -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="folder with results files of lm_eval")
    parser.add_argument("--png", type=Path, help="also draw the curves into this file")
    args = parser.parse_args()
    try:
        records = [read_record(path) for path in find_results(args.folder)]
        sys.stdout.write(table(records) + "\n")
        if args.png:
            draw(records, args.png)
    except PrunedEvalError as error:
        sys.stderr.write(error_line("lm_eval_pruned.results.curve", str(error)))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
