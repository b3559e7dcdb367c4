"""Timing of rivals in turns, so that what else a shared machine does meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def in_turns(works: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run every work once a round and return the seconds that each says it took."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(work())
    return times


def warm_in_turns(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Run every work once to warm up and then once a round; return the seconds of the rounds."""
    timed = {name: partial(seconds, work) for name, work in works.items()}
    in_turns(timed, 1)
    return in_turns(timed, rounds)


def ratio(mine: Sequence[float], peer: Sequence[float]) -> float:
    """Return the median over the rounds of how many times as long as its peer a work took."""
    return median(one / other for one, other in zip(mine, peer, strict=True))
