"""Judge pairs of measurements, a baseline's and a new one: worse in the direction of their metric, or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lm_eval_pruned.results.area import AREA
from lm_eval_pruned.results.comparison import Comparison, Pair, compare, is_comparable
from lm_eval_pruned.results.differences import contradictions, in_words
from lm_eval_pruned.results.measurement import Measurement
from lm_eval_pruned.results.records.identity import RUN
from lm_eval_pruned.results.records.metrics import direction

Status = Literal["regression", "sparsity", "missing", "unknown-direction", "undetectable", "fine"]
FAILING: frozenset[Status] = frozenset({"regression", "sparsity", "missing", "unknown-direction"})

# Differences this close to the margin are equal to it up to rounding.
_TIE = 1e-9


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


def judge(matches: Sequence[Match], *, alpha: float, margin: float) -> list[Finding]:
    """Compare each new measurement with its baseline where both have outcomes of one question at least.

    Args:
        matches: what to compare, all in one table.
        alpha: level of the one-sided paired test, corrected by Holm over the table.
        margin: change for the worse that is tolerated, in the unit of the metric.
    """
    judged = [(match, pair) for match in matches if (pair := _pair(match)) is not None]
    tested = [pair for _, pair in judged if pair.higher_is_better is not None]
    comparisons = iter(compare(tested, alpha=alpha, alternative="less", margin=margin))
    return [
        _unknown(match) if pair.higher_is_better is None else _verdict(match, pair, next(comparisons), alpha, margin)
        for match, pair in judged
    ]


def _pair(match: Match) -> Pair | None:
    if match.new.outcomes is None or match.old.outcomes is None:
        return None
    metric = match.old.metric.removeprefix(AREA)
    stated = (match.old.higher_is_better, match.new.higher_is_better)
    pair = Pair(match.new.outcomes, match.old.outcomes, direction(metric, stated))
    return pair if is_comparable(pair) else None


def _unknown(match: Match) -> Finding:
    is_stated = match.old.higher_is_better is not None and match.new.higher_is_better is not None
    reason = "the baseline and the runs contradict each other on" if is_stated else "no file says"
    return Finding(
        status="unknown-direction",
        name=match.name,
        message=f"{reason} whether a higher {match.old.metric} is better, so it is not compared: set higher_is_better "
        "of this metric to true or false in the YAML file of the task and run it again, or in the baseline file",
    )


def _verdict(match: Match, pair: Pair, comparison: Comparison, alpha: float, margin: float) -> Finding:
    unit = _Unit(
        all(0 <= value <= 1 for one in (pair.new, pair.old) for value in (one.correct.min(), one.correct.max()))
    )
    worse = "rise" if pair.higher_is_better is False else "drop"
    gain = -comparison.difference if pair.higher_is_better is False else comparison.difference
    change = unit.signed(comparison.difference)
    if pair.higher_is_better is False:
        change += f" ({'better' if gain > 0 else 'worse' if gain < 0 else 'no change'}: lower is better)"
    figures = (
        f"{change}{unit.interval(comparison)} on {comparison.questions} questions, "
        f"p = {comparison.p:.2g}, {comparison.p_holm:.2g} corrected ({comparison.test})"
    )
    reach = (
        f"no {worse} at all can be found on {comparison.questions} questions"
        if comparison.detectable is None
        else f"a {worse} is found 4 times in 5 from {unit.amount(comparison.detectable)}"
    )
    if comparison.p_holm <= alpha:
        beyond = f" beyond the margin of {unit.amount(margin)}" if margin else ""
        status: Status = "regression"
        message = f"{figures}: a significant {worse}{beyond}"
    elif gain < -margin - _TIE:
        status = "undetectable"
        message = f"{figures}: undetectable, so small a {worse} cannot be told from noise here; {reach}"
    else:
        status, message = "fine", f"{figures}; {reach}"
    return Finding(status=status, name=match.name, message=message + _doubt(match))


def _doubt(match: Match) -> str:
    """Say what makes it doubtful that both measurements are of one model, if anything does."""
    old, new = match.old.configuration, match.new.configuration
    if RUN in dict(old.evidence) | dict(new.evidence):
        return "; the files do not say which model ran"
    # Runs under different names were chosen to be compared.
    differing = contradictions(old, new) if old.model == new.model else []
    return f"; the model is another one: {in_words(differing)}" if differing else ""


class _Unit(NamedTuple):
    """How amounts of a metric are written: those between 0 and 1 in points of 100, others as they are."""

    is_share: bool

    def bound(self, value: float) -> str:
        return f"{100 * value:+.1f}" if self.is_share else f"{value:+.4g}"

    def interval(self, comparison: Comparison) -> str:
        if comparison.low is None or comparison.high is None:
            return ""
        return f" [{self.bound(comparison.low)}, {self.bound(comparison.high)}]"

    def signed(self, value: float) -> str:
        return self.bound(value) + (" points" if self.is_share else "")

    def amount(self, value: float) -> str:
        return f"{100 * value:.1f} points" if self.is_share else f"{value:.4g}"
