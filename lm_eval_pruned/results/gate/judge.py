"""Judge pairs of measurements, a baseline's and a new one: worse in the direction of their metric, or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Literal, NamedTuple

from lm_eval_pruned.results.area import AREA
from lm_eval_pruned.results.comparison import Comparison, Pair, compare, is_comparable
from lm_eval_pruned.results.equivalence import Proof, prove
from lm_eval_pruned.results.gate.rules import Rules
from lm_eval_pruned.results.gate.wording import Unit, doubt, worse
from lm_eval_pruned.results.measurement import Measurement
from lm_eval_pruned.results.records.metrics import direction

Status = Literal["regression", "sparsity", "missing", "unknown-direction", "undetectable", "fine", "equivalent"]
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


def judge(matches: Sequence[Match], rules: Rules) -> list[Finding]:
    """Compare each new measurement with its baseline where both have outcomes of one question at least.

    Args:
        matches: what to compare, all in one table, over which p-values are corrected by Holm.
        rules: level of the one-sided paired tests, and margins.
    """
    judged = [(match, pair) for match in matches if (pair := _pair(match)) is not None]
    tested = [pair for _, pair in judged if pair.higher_is_better is not None]
    comparisons = iter(compare(tested, alpha=rules.alpha, alternative="less", margin=rules.margin))
    proofs: Iterator[Proof | None] = repeat(None)
    if rules.equivalence is not None:
        proofs = iter(prove(tested, alpha=rules.alpha, margin=rules.equivalence))
    return [
        _unknown(match)
        if pair.higher_is_better is None
        else _verdict(match, pair, next(comparisons), next(proofs), rules)
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


def _verdict(match: Match, pair: Pair, comparison: Comparison, proof: Proof | None, rules: Rules) -> Finding:
    unit, noun = Unit.of(pair), worse(pair)
    gain = -comparison.difference if pair.higher_is_better is False else comparison.difference
    interval = unit.interval(comparison.low, comparison.high)
    figures = (
        f"{unit.change(comparison.difference, pair)}{interval} on {comparison.questions} questions, "
        f"p = {comparison.p:.2g}, {comparison.p_holm:.2g} corrected ({comparison.test})"
    )
    reach = (
        f"no {noun} at all can be found on {comparison.questions} questions"
        if comparison.detectable is None
        else f"a {noun} is found 4 times in 5 from {unit.amount(comparison.detectable)}"
    )
    if comparison.p_holm <= rules.alpha:
        beyond = f" beyond the margin of {unit.amount(rules.margin)}" if rules.margin else ""
        status: Status = "regression"
        message = f"{figures}: a significant {noun}{beyond}"
    elif gain < -rules.margin - _TIE:
        status = "undetectable"
        message = f"{figures}: undetectable, so small a {noun} cannot be told from noise here; {reach}"
    else:
        status, message = "fine", f"{figures}; {reach}"
    if proof is not None and rules.equivalence is not None:
        message += _proof(proof, f"{noun} of {unit.amount(rules.equivalence)}", rules.alpha)
        if proof.p_holm <= rules.alpha and status != "regression":
            status = "equivalent"
    message += doubt(match.old.configuration, match.new.configuration)
    return Finding(status=status, name=match.name, message=message)


def _proof(proof: Proof, amount: str, alpha: float) -> str:
    p = f"p = {proof.p:.2g}, {proof.p_holm:.2g} corrected ({proof.test})"
    if proof.p_holm <= alpha:
        return f"; a {amount} is excluded, {p}"
    needed = "" if proof.needed is None else f", and 80 in 100 with {proof.needed}"
    return (
        f"; a {amount} is not excluded, {p}; with these questions equally good runs are found equivalent "
        f"{100 * proof.power:.0f} times in 100{needed}"
    )
