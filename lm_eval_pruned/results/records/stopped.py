"""Runs that a sweep stopped early: after how many questions, and with which verdict, as their results file says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

# The key in a results file; docs/sweeps.md describes what is below it.
EARLY_STOPPING = "early_stopping"


class Stopped(NamedTuple):
    """A task of which `asked` of `of` questions were asked, and the verdict on its curve against the dense run."""

    asked: int
    of: int
    verdict: str

    def words(self) -> str:
        """Say so in a few words.

        Example:
            >>> Stopped(20, 200, "drop").words()
            'stopped after 20 of 200: drop'
        """
        return f"stopped after {self.asked} of {self.of}: {self.verdict}"


def stopped_task(content: Mapping[str, object], task: str) -> Stopped | None:
    """Return how a task of a results file was stopped; None if it was not.

    Raises:
        TypeError: the entry is malformed.
    """
    match content.get(EARLY_STOPPING):
        case None:
            return None
        case {"tasks": {**tasks}}:
            if (entry := tasks.get(task)) is None:
                return None
            match entry:
                case {"stopped_at": int(asked), "of": int(of), "verdict": str(verdict)}:
                    return Stopped(asked, of, verdict) if asked < of else None
    raise TypeError(f"{EARLY_STOPPING} is not what a sweep writes: run the cell again")


def merged_stopped(runs: Sequence[Stopped | None]) -> Stopped | None:
    """Return how several seeds together were stopped: all of them have asked the fewest; None if none was stopped.

    Example:
        >>> merged_stopped([Stopped(20, 200, "drop"), None, Stopped(40, 200, "drop")])
        Stopped(asked=20, of=200, verdict='drop')
    """
    known = [run for run in runs if run is not None]
    if not known:
        return None
    verdicts = dict.fromkeys(run.verdict for run in known)
    return Stopped(min(run.asked for run in known), max(run.of for run in known), ", ".join(verdicts))
