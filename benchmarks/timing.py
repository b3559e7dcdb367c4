"""Interleaved timing of alternatives, so that other load on a shared machine affects all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def processor_seconds(work: Callable[[], object]) -> float:
    """Return the seconds that all threads of this process compute, whatever else runs on the machine."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def in_turns(works: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run each work once in every round and return the seconds that it reports."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(work())
    return times


def warm_in_turns(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Run each work once to warm up, then once in every round; return the seconds of the rounds."""
    timed = {name: partial(seconds, work) for name, work in works.items()}
    in_turns(timed, 1)
    return in_turns(timed, rounds)


def ratio(mine: Sequence[float], peer: Sequence[float]) -> float:
    """Return the median over the rounds of the time of a work divided by that of its peer."""
    return median(one / other for one, other in zip(mine, peer, strict=True))
