"""Judge pairs of measurements after any number of questions, and again after more, without inflating the errors."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from typing import NamedTuple

from lm_eval_pruned.results.comparison import Pair, differences, gains, is_share
from lm_eval_pruned.results.gate.findings import Finding, Match, Status, pair_of, unknown_direction
from lm_eval_pruned.results.gate.rules import Rules
from lm_eval_pruned.results.gate.wording import Unit, doubt, worse
from lm_eval_pruned.results.statistics.eprocess import log_e_losses, log_e_mean, mean_sequence
from lm_eval_pruned.results.statistics.paired import DECIMALS, Floats, is_mcnemar

# A larger e is not written out.
_MOST = 1e6


class Evidence(NamedTuple):
    """Logarithms of e: for a change for the worse beyond the margin, and against one as large as that of equivalence.

    `same` is None where equivalence was not asked for, or the metric has no bounds.
    """

    worse: float
    same: float | None


def judge_sequentially(matches: Sequence[Match], rules: Rules, *, lines: int) -> list[Finding]:
    """Compare each new measurement with its baseline on the questions that were asked so far.

    Args:
        matches: what to compare.
        rules: levels and margins.
        lines: number of lines that the table will ever have: a verdict takes e of lines / alpha.
    """
    judged = [(match, pair) for match in matches if (pair := pair_of(match)) is not None]
    return [
        unknown_direction(match) if pair.higher_is_better is None else _verdict(match, pair, rules, lines)
        for match, pair in judged
    ]


def evidence(values: Floats, rules: Rules, *, bounded: bool) -> Evidence:
    """Return what gains [questions] say, for the better if positive, at any time.

    Worse: where answers are right or wrong and the margin is 0, and in metrics without bounds, by the numbers of
    questions lost and won; in fractions, and with a margin, by bets on the mean. Equivalence: by bets on the mean.
    """
    values = values.round(DECIMALS)
    if bounded and (rules.margin or not is_mcnemar(values)):
        lost = log_e_mean(-values - rules.margin, least=-1 - rules.margin)
    else:
        beyond = values + rules.margin
        lost = float(log_e_losses((beyond < 0).sum(dtype=float), (beyond > 0).sum(dtype=float)))
    if rules.equivalence is None or not bounded:
        return Evidence(lost, None)
    return Evidence(lost, log_e_mean(values + rules.equivalence, least=rules.equivalence - 1))


def _verdict(match: Match, pair: Pair, rules: Rules, lines: int) -> Finding:
    unit, noun, bounded = Unit.of(pair), worse(pair), is_share(pair)
    deltas, found = differences(pair), evidence(gains(pair, center=-rules.margin), rules, bounded=bounded)
    needed, of_baseline = log(lines / rules.alpha), len(match.old.outcomes.questions) if match.old.outcomes else 0
    low, high = mean_sequence(deltas, alpha=rules.alpha) if bounded else (None, None)
    asked = f"{len(deltas)} of {of_baseline} questions"
    parts = [f"{unit.change(float(deltas.mean()), pair)}{unit.interval(low, high)} on {asked}"]
    beyond = f" beyond the margin of {unit.amount(rules.margin)}" if rules.margin else ""
    parts.append(f"e = {_number(found.worse)} of {exp(needed):.4g} for a {noun}{beyond}")
    status: Status = "undecided"
    if rules.equivalence is not None:
        amount = f"a {noun} of {unit.amount(rules.equivalence)}"
        if found.same is None:
            parts.append(f"{amount} cannot be excluded before the end in a metric without bounds")
        else:
            parts.append(f"e = {_number(found.same)} against {amount}")
            status = "equivalent" if found.same >= needed else status
    if found.worse >= needed:
        status = "regression"
    message = "; ".join(parts) + doubt(match.old.configuration, match.new.configuration)
    return Finding(status=status, name=match.name, message=message)


def _number(log_e: float) -> str:
    return f"{exp(log_e):.3g}" if log_e < log(_MOST) else f"more than {_MOST:.0e}"
