"""Test-time scaling at a glance: accuracy against the thinking budget, as a table and as a picture.

python -m lm_eval_pruned.results.curve DIR [--png FILE] reads every results file of the harness below DIR.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lm_eval_pruned.errors import DataError, MissingPackageError, PrunedEvalError, error_line
from lm_eval_pruned.results.labels import distinctions
from lm_eval_pruned.results.measurement import Key, Measurement, measure
from lm_eval_pruned.results.records.metrics import ACCURACIES
from lm_eval_pruned.results.records.reading import read_records
from lm_eval_pruned.results.records.record import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKERS = "osD^v"
_SHIFT = 1.06

_COLUMNS = ("thinking_tokens", "budget_hit", "answer_cut", "no_answer")


class Curve(NamedTuple):
    """The measurements of one configuration on one benchmark, by increasing budget."""

    label: str
    sparsity: float | None
    benchmark: str
    points: list[Measurement]


def build_curves(records: Sequence[Record]) -> list[Curve]:
    """Return the curves of all runs, seeds merged, in the order of the runs, with distinct labels."""
    budgeted = {key: measured for key, measured in measure(records).items() if measured.budget is not None}
    settings = distinctions(budgeted)
    has_several_models = len({key.configuration.model for key in budgeted}) > 1
    # Tasks that are asked alike share a configuration, whatever their budget.
    by_curve: dict[object, list[Key]] = {}
    for key, measured in budgeted.items():
        by_curve.setdefault((key.configuration, measured.benchmark, key.filter), []).append(key)

    def label(key: Key) -> str:
        model = key.configuration.model if has_several_models else ""
        return " · ".join(part for part in (model, key.configuration.label, settings[key]) if part)

    return [
        Curve(
            label(keys[0]),
            budgeted[keys[0]].sparsity,
            budgeted[keys[0]].benchmark,
            sorted((budgeted[key] for key in keys), key=lambda point: point.budget or 0),
        )
        for keys in by_curve.values()
    ]


def format_table(lines: Sequence[Curve]) -> str:
    """Return a plain-text table with one line per run, benchmark and budget."""
    width = max([22, *(len(line.label) for line in lines)]) + 2
    head = (
        f"{'run':<{width}}{'task':<18}{'budget':>7}{'acc':>16}{'95 %':>18}{'thinking':>10}{'cut':>7}{'answer cut':>12}"
        f"{'no answer':>11}"
    )
    return "\n".join([head, *_rows(lines, width)])


def _rows(lines: Sequence[Curve], width: int) -> Iterator[str]:
    for line in lines:
        for point in line.points:
            tokens, *shares = (point.metrics.get(name) for name in _COLUMNS)
            cut, answer_cut, missing = (_known(share, ".2f") for share in shares)
            yield (
                f"{line.label:<{width}}{line.benchmark:<18}{point.budget:>7}{_accuracy(point):>16}{_interval(point):>18}"
                f"{_known(tokens, '.1f'):>10}{cut:>7}{answer_cut:>12}{missing:>11}"
            )


def _known(value: float | None, layout: str) -> str:
    return "-" if value is None else format(value, layout)


def _accuracy(point: Measurement) -> str:
    """Return the mean, and with several seeds the standard deviation over them; a stopped run has none."""
    if point.stopped is not None:
        return f"{point.stopped.asked} of {point.stopped.of} asked"
    return f"{point.accuracy:.3f}" + (f" ± {point.std:.3f}" if point.std is not None else "")


def _interval(point: Measurement) -> str:
    return "-" if point.interval is None else "{:.3f} to {:.3f}".format(*point.interval)


def _reach(point: Measurement) -> tuple[float, float]:
    """Return how far the 95 % interval reaches below and above the mean; 0 where it is unknown."""
    low, high = point.interval or (point.accuracy, point.accuracy)
    return point.accuracy - low, high - point.accuracy


def draw(lines: Sequence[Curve]) -> Figure:
    """Plot accuracy against the thinking budget, one panel per benchmark and one line per run.

    Raises:
        DataError: there is no curve.
        MissingPackageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullLocator, ScalarFormatter
    except ImportError:
        raise MissingPackageError("drawing needs matplotlib: pip install 'lm-eval-pruned[plot]'") from None
    benchmarks = list(dict.fromkeys(line.benchmark for line in lines))
    if not benchmarks:
        raise DataError("these runs hold no task under a thinking budget: nothing can be drawn")
    figure = Figure(figsize=(1.4 + 4.6 * len(benchmarks), 4.2), layout="constrained", dpi=150)
    for axes, benchmark in zip(figure.subplots(1, len(benchmarks), squeeze=False)[0], benchmarks, strict=True):
        shown = [line for line in lines if line.benchmark == benchmark]
        drawn = []
        for index, line in enumerate(shown):
            points = [point for point in line.points if point.stopped is None]
            budgets = [point.budget or 0 for point in points]
            # Shifted sideways, since runs that agree would hide each other.
            shift = _SHIFT ** (index - (len(shown) - 1) / 2)
            bars = axes.errorbar(
                [budget * shift for budget in budgets],
                [point.accuracy for point in points],
                list(zip(*map(_reach, points), strict=True)) or None,
                marker=_MARKERS[index % len(_MARKERS)],
                capsize=3,
            )
            drawn.append(bars)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({point.budget or 0 for line in shown for point in line.points}))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        # Names come from other people's files, and dollar signs in them do not start mathematics.
        axes.set_title(benchmark, parse_math=False)
        axes.set_xlabel("thinking budget (tokens)")
        axes.set_ylabel(_axis(shown), parse_math=False)
        if all(point.metric in ACCURACIES for line in shown for point in line.points):
            axes.set_ylim(0, 1.03)
        axes.grid(alpha=0.3)
        for text in axes.legend(drawn, [_title(line) for line in shown], loc="upper left").get_texts():
            text.set_parse_math(False)
    return figure


def _axis(lines: Sequence[Curve]) -> str:
    """Name the metrics of some curves, and their direction if lower is better."""
    points = [point for line in lines for point in line.points]
    if all(point.metric in ACCURACIES for point in points):
        return "accuracy"
    names = ", ".join(dict.fromkeys(point.metric for point in points))
    return names + (" (lower is better)" if all(point.higher_is_better is False for point in points) else "")


def _title(line: Curve) -> str:
    return line.label if line.sparsity is None else f"{line.label} ({line.sparsity:.1%} zero)"


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
        lines = build_curves(records)
        sys.stdout.write(format_table(lines) + "\n")
        if args.png:
            draw(lines).savefig(args.png)
    except PrunedEvalError as error:
        sys.stderr.write(error_line("lm_eval_pruned.results.curve", str(error)))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
