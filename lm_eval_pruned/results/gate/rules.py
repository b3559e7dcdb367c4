"""The rules of the gate: levels and margins by which measurements are judged."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How measurements are judged; margins are in the unit of the metric, 0.02 is two points of an accuracy.

    Attributes:
        alpha: probability of any false regression among all comparisons, and of any false equivalence.
        margin: change for the worse that is tolerated.
        equivalence: change for the worse that a line called equivalent excludes; None asks for no such lines.
        sequential: judge by e-processes, which may be looked at after every batch of questions.
    """

    alpha: float = 0.05
    margin: float = 0.0
    equivalence: float | None = None
    sequential: bool = False
