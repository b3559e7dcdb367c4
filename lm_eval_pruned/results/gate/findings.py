"""Findings of the gate: their statuses, the pairs of measurements they are about, and those nobody can judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from lm_eval_pruned.results.area import AREA
from lm_eval_pruned.results.comparison import Pair, is_comparable
from lm_eval_pruned.results.measurement import Measurement
from lm_eval_pruned.results.records.metrics import direction

Status = Literal[
    "regression", "sparsity", "missing", "unknown-direction", "undetectable", "fine", "equivalent", "undecided"
]
FAILING: frozenset[Status] = frozenset({"regression", "sparsity", "missing", "unknown-direction"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report: `status` is the verdict on `name`, `message` a sentence with the figures."""

    status: Status
    name: str
    message: str


class Match(NamedTuple):
    """A measurement of the baseline and a new one to judge by it, and the name of their line in the report."""

    name: str
    old: Measurement
    new: Measurement


def pair_of(match: Match) -> Pair | None:
    """Return the outcomes of both measurements and their direction; None if they have no question in common."""
    if match.new.outcomes is None or match.old.outcomes is None:
        return None
    metric = match.old.metric.removeprefix(AREA)
    stated = (match.old.higher_is_better, match.new.higher_is_better)
    pair = Pair(match.new.outcomes, match.old.outcomes, direction(metric, stated), match.new.stopped is not None)
    return pair if is_comparable(pair) else None


def unknown_direction(match: Match) -> Finding:
    """Return the finding that nobody knows which direction of the metric is better."""
    is_stated = match.old.higher_is_better is not None and match.new.higher_is_better is not None
    reason = "the baseline and the runs contradict each other on" if is_stated else "no file says"
    return Finding(
        status="unknown-direction",
        name=match.name,
        message=f"{reason} whether a higher {match.old.metric} is better, so it is not compared: set higher_is_better "
        "of this metric to true or false in the YAML file of the task and run it again, or in the baseline file",
    )
