"""What pruning changed along traces: KL a token, flips and surviving traces, in all, by budget and by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_pruned.results.statistics.intervals import Interval
from lm_eval_pruned.results.statistics.ratio import ratio_interval

SCHEMA_VERSION = 1
# Stands in every text output and picture.
MEANING = "how much pruning changed, not whether answers suffer: neither a pass nor a fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What changed at each token of the responses of some traces, which are joined one after the other.

    Attributes:
        kl: KL(dense || pruned) in nats [tokens].
        flipped: whether the argmax changed [tokens].
        offsets: where each trace begins, and the number of all tokens [traces + 1].
        thinking: tokens of each trace that are thinking [traces].
        questions: the key of the question of each trace.
    """

    kl: NDArray[np.float64]
    flipped: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    thinking: NDArray[np.int64]
    questions: Sequence[str]

    @property
    def traces(self) -> NDArray[np.int64]:
        """The index of the trace of each token [tokens]."""
        return np.repeat(np.arange(len(self.questions)), np.diff(self.offsets))

    @property
    def positions(self) -> NDArray[np.int64]:
        """The position of each token in its response, from 0 [tokens]."""
        return np.arange(len(self.kl)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))


class Rates(NamedTuple):
    """KL in nats a token, the share of tokens that flipped, and the share of traces in which none did."""

    kl: float
    flips: float
    survive: float


def rates(changes: Changes, chosen: NDArray[np.bool_] | None = None) -> Rates:
    """Return the rates over the chosen tokens [tokens]; a trace without any of them survives.

    Example:
        >>> kl, flipped = np.array([0.5, 0.75, 0.25]), np.array([False, True, False])
        >>> rates(Changes(kl=kl, flipped=flipped, offsets=np.array([0, 2, 3]), thinking=np.array([1, 1]),
        ...               questions=("a", "b")))
        Rates(kl=0.5, flips=0.3333333333333333, survive=0.5)
    """
    chosen = np.ones(len(changes.kl), dtype=np.bool_) if chosen is None else chosen
    if not chosen.any():
        return Rates(0.0, 0.0, 1.0)
    broken = np.unique(changes.traces[chosen & changes.flipped])
    return Rates(
        float(changes.kl[chosen].mean()),
        float(changes.flipped[chosen].mean()),
        1 - len(broken) / len(changes.questions),
    )


def kl_interval(changes: Changes, chosen: NDArray[np.bool_] | None = None) -> Interval | None:
    """Return the 95 % interval of KL a token over the chosen tokens, by question; None if it is unknown."""
    chosen = np.ones(len(changes.kl), dtype=np.bool_) if chosen is None else chosen
    _, cluster = np.unique(np.asarray(changes.questions), return_inverse=True)
    of_tokens = cluster[changes.traces[chosen]]
    counts = np.bincount(of_tokens).astype(np.float64)
    # Rounding leaves some KL of nearly equal distributions slightly below 0.
    sums = np.maximum(np.bincount(of_tokens, weights=changes.kl[chosen]), 0.0)
    return ratio_interval(sums[counts > 0], counts[counts > 0])


def summarise(changes: Changes, budgets: Sequence[int]) -> dict[str, object]:
    """Return the counts, rates, intervals, budgets and questions of `divergence.json`.

    A budget of b takes the first b tokens of the thinking of each trace. Without an interval, with a single question or
    without any change, `kl_low` and `kl_high` are null.
    """
    interval = kl_interval(changes)
    within = changes.positions < changes.thinking[changes.traces]
    first_flips = first_flip(changes)
    return {
        "traces": len(changes.questions),
        "tokens": len(changes.kl),
        "kl": rates(changes).kl,
        "kl_low": None if interval is None else interval.low,
        "kl_high": None if interval is None else interval.high,
        "flips": rates(changes).flips,
        "survive": rates(changes).survive,
        "by_budget": [
            {"budget": budget, **rates(changes, within & (changes.positions < budget))._asdict()} for budget in budgets
        ],
        "questions": [
            {
                "doc_hash": question,
                "tokens": int(changes.offsets[index + 1] - changes.offsets[index]),
                "kl": float(changes.kl[changes.offsets[index] : changes.offsets[index + 1]].sum()),
                "first_flip": None if first_flips[index] < 0 else int(first_flips[index]),
            }
            for index, question in enumerate(changes.questions)
        ],
    }


def first_flip(changes: Changes) -> NDArray[np.int64]:
    """Return the position of the first flip of each trace, from 0, and -1 where there is none [traces]."""
    found = np.full(len(changes.questions), -1)
    # The last assignment counts, so from the end on.
    places = np.flatnonzero(changes.flipped)[::-1]
    found[changes.traces[places]] = changes.positions[places]
    return found


def summary_lines(summary: Mapping[str, object], perplexity: float) -> list[str]:
    """Return the plain text of a summary; `perplexity` is that of the traces under the dense model."""
    low, high = summary["kl_low"], summary["kl_high"]
    interval = "" if low is None else f"   95 % {low:.3g} to {high:.3g}, by question"
    return [
        f"{summary['traces']} traces, {summary['tokens']:,} tokens; perplexity {perplexity:.3g} under the dense model",
        f"KL(dense || pruned)  {summary['kl']:.3g} nats a token{interval}",
        f"flips                {summary['flips']:.3%}".replace("%", " % of the tokens have another argmax"),
        f"survive              {summary['survive']:.1%}".replace("%", " % of the traces have no flip"),
        *_budget_lines(summary["by_budget"]),  # type: ignore[arg-type]
        *([f"{summary['approximation']}."] if "approximation" in summary else []),
        f"This measures {MEANING}.",
    ]


def _budget_lines(budgets: Sequence[Mapping[str, float]]) -> list[str]:
    rows = [f"{one['budget']:>8,}{one['kl']:>12.3g}{one['flips']:>11.3%}{one['survive']:>11.1%}" for one in budgets]
    return ["  budget          KL      flips    survive", *rows] if rows else []
