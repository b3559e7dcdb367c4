"""Judge pairs of measurements, a baseline's and a new one: worse in the direction of their metric, or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat

from lm_eval_pruned.results.comparison import Comparison, Pair, compare
from lm_eval_pruned.results.equivalence import Proof, prove
from lm_eval_pruned.results.gate.findings import Finding, Match, Status, pair_of, unknown_direction
from lm_eval_pruned.results.gate.rules import Rules
from lm_eval_pruned.results.gate.wording import Unit, doubt, worse

# Differences this close to the margin are equal to it up to rounding.
_TIE = 1e-9


def judge(matches: Sequence[Match], rules: Rules) -> list[Finding]:
    """Compare each new measurement with its baseline where both have outcomes of one question at least.

    Args:
        matches: what to compare, all in one table, over which p-values are corrected by Holm.
        rules: level of the one-sided paired tests, and margins.
    """
    judged = [(match, pair) for match in matches if (pair := pair_of(match)) is not None]
    tested = [pair for _, pair in judged if pair.higher_is_better is not None]
    comparisons = iter(compare(tested, alpha=rules.alpha, alternative="less", margin=rules.margin))
    proofs: Iterator[Proof | None] = repeat(None)
    if rules.equivalence is not None:
        proofs = iter(prove(tested, alpha=rules.alpha, margin=rules.equivalence))
    return [
        unknown_direction(match)
        if pair.higher_is_better is None
        else _verdict(match, pair, next(comparisons), next(proofs), rules)
        for match, pair in judged
    ]


def _verdict(match: Match, pair: Pair, comparison: Comparison, proof: Proof | None, rules: Rules) -> Finding:
    unit, noun = Unit.of(pair), worse(pair)
    gain = -comparison.difference if pair.higher_is_better is False else comparison.difference
    interval = unit.interval(comparison.low, comparison.high)
    figures = (
        f"{unit.change(comparison.difference, pair)}{interval} on {comparison.questions} questions, "
        f"p = {comparison.p:.2g}, {comparison.p_holm:.2g} corrected ({comparison.test})"
    )
    reach = _reach(comparison, noun, unit)
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


def _reach(comparison: Comparison, noun: str, unit: Unit) -> str:
    if comparison.detectable is not None:
        return f"a {noun} is found 4 times in 5 from {unit.amount(comparison.detectable)}"
    if comparison.low is None:
        return f"nothing changed, so that the smallest {noun} that would be found is unknown in a metric without bounds"
    return f"no {noun} at all can be found on {comparison.questions} questions"


def _proof(proof: Proof, amount: str, alpha: float) -> str:
    p = f"p = {proof.p:.2g}, {proof.p_holm:.2g} corrected ({proof.test})"
    if proof.p_holm <= alpha:
        return f"; a {amount} is excluded, {p}"
    needed = "" if proof.needed is None else f", and 80 in 100 with {proof.needed}"
    return (
        f"; a {amount} is not excluded, {p}; with these questions equally good runs are found equivalent "
        f"{100 * proof.power:.0f} times in 100{needed}"
    )
