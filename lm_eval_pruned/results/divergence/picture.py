"""A picture of what pruning changed: the hazard of a flip and KL by position, and KL by kind of token."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_pruned.errors import MissingPackageError
from lm_eval_pruned.results.divergence.summary import MEANING, Changes, first_flip, kl_interval, rates
from lm_eval_pruned.results.statistics.intervals import Interval, proportion_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Blue and vermilion of Okabe and Ito's palette, distinguishable by colour-blind readers.
_BLUE, _VERMILION = "#0072B2", "#D55E00"

KINDS = ("digits", "operators", "words", "other")
_OPERATORS = frozenset("+-*/=<>^%|&~×÷·±√∑∏∫≤≥≠≈→⇒∈\u2212\\()[]{}_$!")


class Point(NamedTuple):
    """A rate at some positions or for a kind of token, with its interval."""

    value: float
    interval: Interval | None


def kind_of(token: str) -> str:
    r"""Return the kind of a token by its text: with a digit, of operators and brackets alone, with a letter, or other.

    Example:
        >>> [kind_of(token) for token in ("12", " +", r"\(", "the", ".\n", " x2")]
        ['digits', 'operators', 'operators', 'words', 'other', 'digits']
    """
    text = token.strip()
    if any(character.isdigit() for character in text):
        return "digits"
    if text and _OPERATORS.issuperset(text):
        return "operators"
    return "words" if any(character.isalpha() for character in text) else "other"


def position_bins(longest: int) -> NDArray[np.int64]:
    """Return rising edges of bins of positions from 0 on: one token wide at first, then growing by half.

    Example:
        >>> position_bins(20).tolist()
        [0, 1, 2, 3, 4, 6, 9, 13, 19, 20]
    """
    edges = [0]
    while edges[-1] < longest:
        edges.append(min(longest, max(edges[-1] + 1, edges[-1] * 3 // 2)))
    return np.array(edges)


def flip_hazards(changes: Changes, edges: NDArray[np.int64]) -> list[Point]:
    """Return for each bin the share of its tokens that flip first, among traces that reach them without a flip."""
    first, lengths = first_flip(changes), np.diff(changes.offsets)
    # The number of tokens before the first flip, or of all.
    unbroken = np.where(first < 0, lengths, first + 1)
    found = []
    for low, high in pairwise(edges.tolist()):
        at_risk = int(np.clip(unbroken - low, 0, high - low).sum())
        flips = int(((first >= low) & (first < high)).sum())
        share = flips / at_risk if at_risk else float("nan")
        found.append(Point(share, proportion_interval(share, at_risk) if at_risk else None))
    return found


def kl_points(changes: Changes, groups: Sequence[NDArray[np.bool_]]) -> list[Point]:
    """Return KL a token in each group of tokens [tokens], with its interval by question."""
    return [
        Point(rates(changes, group).kl if group.any() else float("nan"), kl_interval(changes, group))
        for group in groups
    ]


def draw_changes(changes: Changes, kinds: Sequence[str], path: Path, *, title: str) -> None:
    """Draw three panels into a PNG: hazard of the first flip and KL by position, and KL by kind of token.

    Args:
        changes: what changed at each token.
        kinds: the kind of each token, one of KINDS.
        path: the PNG.
        title: what was pruned, and how.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError("drawing needs matplotlib: pip install 'lm-eval-pruned[plot]'") from None
    edges = position_bins(int(np.diff(changes.offsets).max()))
    positions = changes.positions
    by_position = [(positions >= low) & (positions < high) for low, high in pairwise(edges)]
    by_kind = [np.asarray(kinds) == kind for kind in KINDS]

    figure = Figure(figsize=(11, 3.6), layout="constrained", dpi=120)
    hazard, kl, kind = figure.subplots(1, 3, width_ratios=(4, 4, 3))
    # Positions count from 1, as on a ruler: 0 has no place on a logarithmic axis.
    centres = np.sqrt((edges[:-1] + 1.0) * edges[1:])
    _draw_points(hazard, centres, flip_hazards(changes, edges), _VERMILION)
    hazard.set_title("hazard of the first flip", loc="left", fontsize="medium")
    hazard.set_ylabel("share of traces without one")
    # What a single question reaches has no interval, and would look like a trend.
    known = [
        point if point.interval or not point.value else Point(np.nan, None) for point in kl_points(changes, by_position)
    ]
    _draw_points(kl, centres, known, _BLUE)
    kl.set_title("KL(dense || pruned) by position", loc="left", fontsize="medium")
    kl.set_ylabel("nats a token")
    for axes in (hazard, kl):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(_whole)
        axes.set_xlabel("token of the response")
    _draw_kinds(kind, kl_points(changes, by_kind), [int(group.sum()) for group in by_kind])
    for axes in (hazard, kl, kind):
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    # A file name may contain dollar signs, which do not start mathematics.
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium", parse_math=False)
    figure.supxlabel(f"{MEANING}; bars are 95 % intervals", fontsize="small", color="0.35")
    figure.savefig(path)


def _whole(value: float, position: object) -> str:
    del position
    return f"{value:g}"


def _draw_points(axes: Axes, places: NDArray[np.float64], points: Sequence[Point], color: str) -> None:
    values = [point.value for point in points]
    axes.errorbar(places, values, _reach(points), color=color, marker="o", markersize=4, capsize=2, linewidth=1.2)


def _draw_kinds(axes: Axes, points: Sequence[Point], counts: Sequence[int]) -> None:
    shown = [index for index, count in enumerate(counts) if count]
    chosen = [points[index] for index in shown]
    axes.bar(
        range(len(shown)), [point.value for point in chosen], yerr=_reach(chosen), color=_BLUE, capsize=3, width=0.6
    )
    axes.set_xticks(range(len(shown)), [f"{KINDS[index]}\n{counts[index]:,}" for index in shown])
    axes.set_title("KL by kind of token", loc="left", fontsize="medium")
    axes.set_xlabel("kind, and number of tokens")


def _reach(points: Sequence[Point]) -> NDArray[np.float64]:
    """Return how far the intervals reach below and above the values [2 points]; 0 where they are unknown."""
    ends = [point.interval or (point.value, point.value) for point in points]
    reach = [
        (max(0.0, point.value - low), max(0.0, high - point.value))
        for point, (low, high) in zip(points, ends, strict=True)
    ]
    return np.array(reach).T
