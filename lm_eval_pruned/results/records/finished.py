"""Finished responses: how many are complete and give an answer, and the accuracy among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

# Fields of a row: shares of its responses whose answer was cut, and that give none.
_CUT, _NONE = "answer_cut", "no_answer"


class Finished(NamedTuple):
    """The share of responses that are finished, and the accuracy among those, None if no response is.

    A response is finished if its answer was not cut and an answer was found in it.
    """

    share: float
    acc: float | None


class FinishedRow(NamedTuple):
    """Of the responses to one question, the share that is finished and the share that is finished and right."""

    share: float
    right: float


def finished_row(row: Mapping[str, object], correct: float) -> FinishedRow | None:
    """Return what a row of a samples file says of finished responses; None if it says nothing.

    A response without an answer is wrong. If only some of a question's answers were cut, nobody knows which are right.

    Example:
        >>> finished_row({"answer_cut": 0.0, "no_answer": 0.25}, 0.5), finished_row({"answer_cut": 0.25}, 0.5)
        (FinishedRow(share=0.75, right=0.5), None)
    """
    match row.get(_CUT), row.get(_NONE):
        case 0 | 0.0, int() | float() as none:
            return FinishedRow(1 - float(none), correct)
        case 1 | 1.0, int() | float():
            return FinishedRow(0.0, 0.0)
    return None


def finished(shares: Sequence[float], right: Sequence[float]) -> Finished | None:
    """Return the figures of a run from those of its questions; None without questions."""
    if not shares:
        return None
    total = sum(shares)
    return Finished(total / len(shares), sum(right) / total if total else None)


def merged(runs: Sequence[Finished | None]) -> Finished | None:
    """Return the figures of several seeds together; None if one seed has none."""
    known = [run for run in runs if run is not None]
    if len(known) < len(runs):
        return None
    return finished([run.share for run in known], [run.share * (run.acc or 0.0) for run in known])
