"""Test-time scaling at a glance: accuracy against the thinking budget, as a table and as a picture.

python -m lm_eval_pruned.results.curve DIR [--png FILE] reads every results file of the harness below DIR.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from lm_eval_pruned.console import error_line
from lm_eval_pruned.errors import DataError, MissingPackageError, PrunedEvalError
from lm_eval_pruned.results.merge import Measurement, measure
from lm_eval_pruned.results.reading import read_records
from lm_eval_pruned.results.record import Record

_MARKERS = "osD^v"
_SHIFT = 1.06

_COLUMNS = ("thinking_tokens", "budget_hit", "no_answer")


class Curve(NamedTuple):
    """What one configuration reached on one benchmark, rising in budget."""

    label: str
    sparsity: float | None
    benchmark: str
    points: list[Measurement]


def curves(records: Sequence[Record]) -> list[Curve]:
    """Return the curves of all runs, seeds merged, in the order of the runs."""
    budgeted = [found for found in measure(records).values() if found.budget is not None]
    # Tasks that are asked alike share a configuration, whatever their budget.
    places: dict[object, int] = {}
    for found in budgeted:
        places.setdefault((found.configuration, found.benchmark, found.filter), len(places))

    def place(found: Measurement) -> int:
        return places[found.configuration, found.benchmark, found.filter]

    grouped = (list(group) for _, group in groupby(sorted(budgeted, key=place), key=place))
    return [
        Curve(
            points[0].configuration.label,
            points[0].sparsity,
            points[0].benchmark,
            sorted(points, key=lambda point: point.budget or 0),
        )
        for points in grouped
    ]


def table(lines: Sequence[Curve]) -> str:
    """Return a plain-text table with one line for each run, benchmark and budget."""
    return "\n".join(
        [f"{'run':<24}{'task':<18}{'budget':>7}{'acc':>16}{'thinking':>10}{'cut':>7}{'no answer':>11}", *_rows(lines)]
    )


def _rows(lines: Sequence[Curve]) -> Iterator[str]:
    for line in lines:
        for point in line.points:
            tokens, cut, missing = (point.metrics.get(name, float("nan")) for name in _COLUMNS)
            yield (
                f"{line.label:<24}{line.benchmark:<18}{point.budget:>7}{_accuracy(point):>16}"
                f"{tokens:>10.1f}{cut:>7.2f}{missing:>11.2f}"
            )


def _accuracy(point: Measurement) -> str:
    spread = _spread(point)
    return f"{point.accuracy:.3f}" + (f" ± {spread:.3f}" if spread is not None else "")


def _spread(point: Measurement) -> float | None:
    """Return the deviation over seeds, or the standard error of a single run."""
    return point.error if point.std is None else point.std


def draw(lines: Sequence[Curve], path: Path) -> None:
    """Draw accuracy against the thinking budget, one panel a benchmark and one line a run, into a PNG.

    Raises:
        DataError: there is no curve.
        MissingPackageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullLocator, ScalarFormatter
    except ImportError:
        raise MissingPackageError("drawing needs matplotlib: pip install 'lm-eval-pruned[page]'") from None
    benchmarks = list(dict.fromkeys(line.benchmark for line in lines))
    if not benchmarks:
        raise DataError("these runs hold no task under a thinking budget: nothing can be drawn")
    figure = Figure(figsize=(1.4 + 4.6 * len(benchmarks), 4.2), layout="constrained", dpi=150)
    for axes, benchmark in zip(figure.subplots(1, len(benchmarks), squeeze=False)[0], benchmarks, strict=True):
        shown = [line for line in lines if line.benchmark == benchmark]
        for place, line in enumerate(shown):
            budgets = [point.budget or 0 for point in line.points]
            # Side by side, since runs that agree would hide each other.
            shift = _SHIFT ** (place - (len(shown) - 1) / 2)
            axes.errorbar(
                [budget * shift for budget in budgets],
                [point.accuracy for point in line.points],
                [_spread(point) or 0.0 for point in line.points],
                marker=_MARKERS[place % len(_MARKERS)],
                capsize=3,
                label=line.label if line.sparsity is None else f"{line.label} ({line.sparsity:.1%} zero)",
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({point.budget or 0 for line in shown for point in line.points}))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(title=benchmark, xlabel="thinking budget (tokens)", ylabel="accuracy", ylim=(0, 1.03))
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
        records, problems = read_records([args.folder])
        for problem in problems:
            sys.stderr.write(f"skipped: {problem}\n")
        lines = curves(records)
        sys.stdout.write(table(lines) + "\n")
        if args.png:
            draw(lines, args.png)
    except PrunedEvalError as error:
        sys.stderr.write(error_line("lm_eval_pruned.results.curve", str(error)))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
