"""Coverage of the intervals and power of the printed drops, now and by the formulas before, and the time they take.

    python benchmarks/coverage_and_power.py [--rounds 400]

Coverage and power of outcomes that are 0 or 1 are exact sums over binomial and trinomial distributions; what is
simulated (fractions, margins, metrics without bounds) has the seed 0. The exit code is 1 if a coverage is below 93 %
where 30 to 500 questions have rates of 0.02 to 0.98, or an exact power is not 78 to 82 %. Seven minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from itertools import product
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

sys.path.append(str(Path(__file__).resolve().parents[1]))

from lm_eval_pruned.results.statistics.intervals import difference_interval, mean_interval, proportion_interval
from lm_eval_pruned.results.statistics.paired import paired_test
from lm_eval_pruned.results.statistics.power import detectable_drop

Floats = NDArray[np.float64]

QUESTIONS = (30, 50, 100, 200, 500)
RATES = (0.02, 0.05, 0.1, 0.5, 0.95, 0.98)
GRID = np.linspace(0.02, 0.98, 1921)


def percentile(values: Floats, generator: np.random.Generator, resamples: int = 2_000) -> tuple[float, float]:
    """Return the percentile bootstrap interval, which was printed before."""
    distinct, counts = np.unique(values, return_counts=True)
    means = generator.multinomial(len(values), counts / len(values), size=resamples) @ distinct / len(values)
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return low, high


def connor(differences: Floats, *, alpha: float, margin: float = 0.0, is_two_sided: bool = False) -> float:
    """Return the detectable drop by the normal approximation, which was printed before."""
    n, size = len(differences), float(np.abs(differences).mean())
    typical = float(np.square(differences).mean()) / size if size else 1.0
    noise = typical * (size - abs(float(differences.mean())))
    z, power = stats.norm.isf(alpha / 2 if is_two_sided else alpha), stats.norm.isf(0.2)

    def excess(drop: float) -> float:
        psi = noise + typical * drop
        null, alternative = max(0.0, psi - 2 * margin * drop + margin**2), max(0.0, psi - drop**2)
        return (drop - margin) * sqrt(n) - z * sqrt(null) - power * sqrt(alternative)

    return float(optimize.brentq(excess, margin + 1e-9, 1.0))


def exact_coverage(questions: int, rates: Floats, edges: Floats) -> Floats:
    right = np.arange(questions + 1)
    covers = (edges[:, :1] <= rates) & (rates <= edges[:, 1:])
    return (stats.binom.pmf(right[:, None], questions, rates) * covers).sum(axis=0)


def means() -> bool:
    """Print the exact coverage for outcomes of 0 or 1; the percentile interval is that of endless resamples."""
    print("coverage of the mean, %: before, now (exact)")
    print("questions " + "".join(f"  p = {rate:<9}" for rate in RATES) + "  least over p = .02 to .98")
    is_good = True
    for n in QUESTIONS:
        right = np.arange(n + 1)
        before = np.stack([stats.binom.ppf(edge, n, right / n) / n for edge in (0.025, 0.975)], axis=1)
        after = np.array([proportion_interval(count / n, n) for count in right])
        shown = [exact_coverage(n, np.array(RATES), edges) for edges in (before, after)]
        least = [exact_coverage(n, GRID, edges).min() for edges in (before, after)]
        is_good &= bool(least[1] >= 0.93)
        cells = "".join(f"  {100 * one:5.1f} {100 * two:5.1f}  " for one, two in zip(*shown, strict=True))
        print(f"{n:>9} {cells}  {100 * least[0]:5.1f} {100 * least[1]:5.1f}")
    worst = min(
        exact_coverage(n, GRID, np.array([proportion_interval(k / n, n) for k in range(n + 1)])).min()
        for n in range(30, 101)
    )
    print(f"least for any number of questions from 30 to 100: {100 * worst:.1f}")
    return is_good and bool(worst >= 0.93)


def simulated_means(rounds: int) -> bool:
    print(f"coverage of the mean of fractions, %: before, now (least of six rates, {rounds} rounds, seed 0)")
    generator, is_good = np.random.default_rng(0), True
    for n, samples, spread in product((30, 100, 500), (3, 16, 64), (0.3, 5.0)):
        found = []
        for rate in RATES:
            chances = generator.beta(rate * spread, (1 - rate) * spread, size=(rounds, n))
            values = generator.binomial(samples, chances) / samples
            old = [low <= rate <= high for low, high in (percentile(one, generator, 500) for one in values[:200])]
            new = [low <= rate <= high for low, high in map(mean_interval, values)]
            found.append((np.mean(old), np.mean(new)))
        before, after = (100 * min(one) for one in zip(*found, strict=True))
        # Three standard errors of the simulation.
        is_good &= after >= 93 - 300 * sqrt(0.07 * 0.93 / rounds)
        print(f"{n:>5} questions, {samples:>2} samples, Beta(p {spread}, (1 - p) {spread}): {before:5.1f} {after:5.1f}")
    return bool(is_good)


def simulated_differences(rounds: int) -> bool:
    print(f"coverage of differences, %: before, now ({rounds} rounds, seed 0)")
    generator, is_good = np.random.default_rng(0), True
    kinds: dict[str, tuple[Callable[[int], Floats], float, bool]] = {
        "2 % lost": (lambda n: -(generator.random(n) < 0.02).astype(float), -0.02, True),
        "7 % lost, 2 % gained": (lambda n: generator.choice([-1.0, 1.0, 0.0], n, p=[0.07, 0.02, 0.91]), -0.05, True),
        "20 % lost, 10 % gained": (lambda n: generator.choice([-1.0, 1.0, 0.0], n, p=[0.2, 0.1, 0.7]), -0.1, True),
        "4 samples, p .95 and .93": (
            lambda n: (generator.binomial(4, 0.93, n) - generator.binomial(4, 0.95, n)) / 4, -0.02, True,
        ),
        "16 samples, 3 % collapse": (
            lambda n: np.where(generator.random(n) < 0.03, 0, generator.binomial(16, 0.95, n)) / 16
            - generator.binomial(16, 0.95, n) / 16, -0.0285, True,
        ),
        "no bounds, exponential": (lambda n: generator.exponential(size=n), 1.0, False),
        "no bounds, lognormal": (lambda n: generator.lognormal(size=n), float(np.exp(0.5)), False),
    }  # fmt: skip
    for name, (draw, truth, bounded) in kinds.items():
        for n in (30, 100):
            values = [draw(n) for _ in range(rounds if bounded else 300)]
            old = [low - 1e-9 <= truth <= high + 1e-9 for low, high in (percentile(v, generator) for v in values[:300])]
            found = [difference_interval(one, bounded=bounded) for one in values]
            new = [one is not None and one.low <= truth <= one.high for one in found]
            is_good &= not bounded or bool(np.mean(new) >= 0.93)
            print(f"{n:>5} questions, {name:<26} {100 * np.mean(old):5.1f} {100 * np.mean(new):5.1f}")
    return is_good


def churned(questions: int, churn: float, size: float = 1.0) -> Floats:
    half = round(churn * questions / 2)
    return np.repeat([-size, size, 0.0], [half, half, questions - 2 * half])


def true_power(n: int, churn: float, drop: float, level: float) -> float:
    """Sum the trinomial distribution over all losses and gains that McNemar's test calls significant."""
    gained = min(churn / 2, (1 - drop) / 2)
    losses, gains = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    significant = (losses + gains <= n) & (stats.binom.cdf(gains, losses + gains, 0.5) <= level)
    losses, gains = losses[significant], gains[significant]
    lost = gained + drop
    counts = stats.binom.pmf(gains, n, gained) * stats.binom.pmf(losses, n - gains, min(1.0, lost / (1 - gained)))
    return float(counts.sum())


def powers() -> bool:
    print("power of the printed drop, %: before, now, and that drop in points (exact, McNemar)")
    is_good = True
    for n, (alpha, is_two_sided, name) in product(
        (30, 100, 200, 500), ((0.05, False, "one-sided"), (0.05, True, "two-sided"), (0.05 / 30, True, "1 of 30"))
    ):
        cells = []
        for churn in (0.0, 0.1, 0.2, 0.4):
            differences = churned(n, churn)
            noise, level = float(np.abs(differences).mean()), alpha / (1 + is_two_sided)
            before = connor(differences, alpha=alpha, is_two_sided=is_two_sided)
            after = detectable_drop(differences, alpha=alpha, is_two_sided=is_two_sided)
            found = [true_power(n, noise, drop, level) for drop in (before, after or 1.0)]
            is_good &= 0.78 <= found[1] <= 0.82
            cells.append(f"churn {churn}: {100 * found[0]:4.1f} {100 * found[1]:4.1f} {100 * (after or 1.0):5.1f}")
        print(f"{n:>5} questions, {name}:  " + "  ".join(cells))
    return is_good


def simulated_powers(rounds: int) -> None:
    print(f"power of the printed drop, %: before, now (sign flips, {rounds} rounds, seed 0)")
    generator = np.random.default_rng(0)

    def power(n: int, churn: float, samples: int, margin: float, drop: float) -> float:
        found, size = 0, 1 / samples
        for _ in range(rounds):
            if samples == 1:
                lost = min(1.0 - churn / 2, churn / 2 + drop)
                change = generator.choice([-1.0, 1.0, 0.0], n, p=[lost, churn / 2, 1 - churn / 2 - lost])
            else:
                change = generator.choice([-size, size, 0.0], n, p=[churn / 2, churn / 2, 1 - churn])
                change = change - size * (generator.random(n) < drop / size)
            found += paired_test(change + margin, "less").p <= 0.05
        return 100 * found / rounds

    for samples, margin, churn, n in product((1, 4), (0.0, 0.02), (0.0, 0.2, 0.4), (30, 100, 500)):
        if (samples == 1) == (margin == 0) or (samples == 4 and not churn):
            continue
        differences = churned(n, churn, 1 / samples)
        noise = float(np.abs(differences).mean()) * samples
        drops = [formula(differences, alpha=0.05, margin=margin) or 1.0 for formula in (connor, detectable_drop)]
        before, after = (power(n, noise, samples, margin, drop) for drop in drops)
        print(f"{n:>5} questions, {samples} samples, margin {margin}, churn {noise:.2f}: {before:5.1f} {after:5.1f}")


def times() -> None:
    generator = np.random.default_rng(0)
    for samples in (1, 4):
        values = generator.binomial(samples, 0.7, size=(601, 500)) / samples
        deltas = list(values[1:] - values[0])
        begin = time.perf_counter()
        for delta in deltas:
            percentile(delta, generator)
            connor(delta, alpha=0.05 / 600, is_two_sided=True)
        middle = time.perf_counter()
        for delta in deltas:
            difference_interval(delta, bounded=True)
            detectable_drop(delta, alpha=0.05 / 600, is_two_sided=True)
        end = time.perf_counter()
        print(f"600 comparisons of 500 questions, {samples} samples: {middle - begin:.1f} s, now {end - middle:.1f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    rounds = parser.parse_args().rounds
    results = [means(), simulated_means(rounds), simulated_differences(rounds), powers()]
    simulated_powers(rounds)
    times()
    return int(not all(results))


if __name__ == "__main__":
    sys.exit(main())
