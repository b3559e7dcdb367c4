"""Bits per byte of documents of very different sizes: coverage of the intervals, and false alarms of the gate's test.

62 documents, as in WikiText-2, are drawn 1,000 times from a population with log-normal sizes (sigma 1) and rates that
fall with size. A second model differs by a constant, which is also the margin of the test, and by noise whose variance
is that of a mean over the bytes of each document.

    python benchmarks/document_rates.py
"""

from __future__ import annotations

import numpy as np

from lm_eval_pruned.results.comparison import Pair, compare
from lm_eval_pruned.results.records.samples import Outcomes
from lm_eval_pruned.results.statistics.intervals import mean_interval

DOCUMENTS, DRAWS, POPULATION = 62, 1_000, 1_000_000
TYPICAL = 3_000


def main() -> None:
    """Simulate and print."""
    for rise in (0.0, 0.1):
        simulate(rise)


def simulate(rise: float) -> None:
    """Print how often intervals hold the truth, and how often a rise by the margin is called a larger one."""
    rng = np.random.default_rng(0)
    sizes = rng.lognormal(8, 1.0, POPULATION)
    rates = 0.6 + 0.1 * rng.standard_normal(POPULATION) - 0.03 * np.log(sizes / TYPICAL)
    truth = float(np.average(rates, weights=sizes))
    questions = np.arange(DOCUMENTS, dtype=np.uint64)
    held = alarms = held_difference = 0
    for _ in range(DRAWS):
        drawn = rng.integers(0, POPULATION, DOCUMENTS)
        weights = sizes[drawn]
        old = Outcomes(questions=questions, correct=rates[drawn], weights=weights)
        noise = 0.01 * np.sqrt(TYPICAL / weights) * rng.standard_normal(DOCUMENTS)
        new = Outcomes(questions=questions, correct=rates[drawn] + rise + noise, weights=weights)
        low, high = mean_interval(old.spread, bounded=False) or (truth, truth)
        (found,) = compare([Pair(new, old, False)], alpha=0.05, alternative="less", margin=rise)
        held += low <= truth <= high
        alarms += found.p <= 0.05
        held_difference += found.low is not None and found.high is not None and found.low <= rise <= found.high
    print(
        f"rise of {rise:.1f}: the 95 % interval of the rate holds it in {held / DRAWS:.1%}, that of the difference in "
        f"{held_difference / DRAWS:.1%}; called worse at 5 %, with this margin, in {alarms / DRAWS:.1%}"
    )


if __name__ == "__main__":
    main()
