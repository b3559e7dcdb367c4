"""Words of the gate's lines: amounts in the unit of a metric, directions, and doubts about the model."""

from __future__ import annotations

from typing import NamedTuple

from lm_eval_pruned.results.comparison import Pair, is_share
from lm_eval_pruned.results.differences import contradictions, in_words
from lm_eval_pruned.results.records.configuration import Configuration
from lm_eval_pruned.results.records.identity import RUN


class Unit(NamedTuple):
    """How amounts of a metric are written: those between 0 and 1 in points of 100, others as they are."""

    is_share: bool

    @classmethod
    def of(cls, pair: Pair) -> Unit:
        """Return the unit of the outcomes of two runs."""
        return cls(is_share(pair))

    def bound(self, value: float) -> str:
        """Write a signed number without its unit."""
        return f"{100 * value:+.1f}" if self.is_share else f"{value:+.4g}"

    def interval(self, low: float | None, high: float | None) -> str:
        """Write an interval after a number, "" where it is unknown."""
        return "" if low is None or high is None else f" [{self.bound(low)}, {self.bound(high)}]"

    def amount(self, value: float) -> str:
        """Write an amount that has no sign."""
        return f"{100 * value:.1f} points" if self.is_share else f"{value:.4g}"

    def change(self, difference: float, pair: Pair) -> str:
        """Write new - old, and what that means where lower is better."""
        text = self.bound(difference) + (" points" if self.is_share else "")
        if pair.higher_is_better is not False:
            return text
        return f"{text} ({'better' if difference < 0 else 'worse' if difference > 0 else 'no change'}: lower is better)"


def worse(pair: Pair) -> str:
    """Return the noun of a change for the worse."""
    return "rise" if pair.higher_is_better is False else "drop"


def doubt(old: Configuration, new: Configuration) -> str:
    """Say what makes it doubtful that both measurements are of one model, if anything does."""
    if RUN in dict(old.evidence) | dict(new.evidence):
        return "; the files do not say which model ran"
    # Runs under different names were chosen to be compared.
    differing = contradictions(old, new) if old.model == new.model else []
    return f"; the model is another one: {in_words(differing)}" if differing else ""
