"""How often runs at the margin are called equivalent, and how often equally good ones are, against what is printed.

    python benchmarks/equivalence.py [--pairs 10000]

Pairs of runs are simulated from the seed 0: outcomes of 0 or 1, means over samples, areas under curves, and a metric
without bounds. The exit code is 1 if one at the margin is called equivalent in more than 5 % (by more than three
standard errors), or if a power differs from the printed one by more than two points. Four minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import product
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))

from lm_eval_pruned.results.statistics.equivalence import equivalence_reach, equivalence_test, fraction_power
from lm_eval_pruned.results.statistics.intervals import Moments, newcombe_bounds
from lm_eval_pruned.results.statistics.power import observed_churn
from lm_eval_pruned.results.statistics.trinomial import Region, rejection_region

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, float], Floats]

ALPHA = 0.05
# Questions of a population, from which those of a pair are drawn.
POPULATION = 400_000
# Few pairs of a metric without bounds, each of which is resampled 20,000 times.
RESAMPLED = 1000


def answers(pairs: int, generator: np.random.Generator) -> bool:
    """Print the shares of outcomes of 0 or 1 that are called equivalent."""
    print("outcomes of 0 or 1: called equivalent at the margin, and if equally good (printed), %")
    is_good = True
    for n, margin, won in product((100, 200, 500, 2000), (0.02, 0.05), (0.0, 0.01, 0.05, 0.1)):
        region = rejection_region(n, margin, ALPHA)

        def share(lost: float, won: float = won, n: int = n, region: Region = region) -> float:
            counts = generator.multinomial(n, [lost, won, 1 - lost - won], size=pairs)
            return float((counts[:, 0] <= region.most_lost[counts[:, 1]]).mean())

        false, power = share(won + margin), share(won)
        half = round(won * n)
        differences = np.repeat([-1.0, 1.0, 0.0], [half, half, n - 2 * half])
        printed = equivalence_reach(differences, margin=margin, level=ALPHA, bounded=True).power
        is_good &= is_rare(false, pairs) and abs(power - printed) <= 0.02
        print(
            f"{n:>6} questions, margin {margin}, churn {2 * won:.2f}: {100 * false:4.1f}  {100 * power:5.1f} "
            f"({100 * printed:.1f})"
        )
    return is_good


def is_rare(share: float, pairs: int) -> bool:
    """Whether a share is 5 % or less, but for three standard errors of the simulation."""
    return share <= ALPHA + 3 * sqrt(ALPHA * (1 - ALPHA) / pairs)


def samples(count: int, *, is_collapse: bool) -> Draw:
    """Return a way to draw differences of means over samples; a drop is a shift, or the collapse of some questions."""

    def draw(generator: np.random.Generator, shape: int, drop: float) -> Floats:
        chances = 0.1 + 0.85 * generator.beta(0.6, 0.3, size=shape)
        worse = chances - drop
        if is_collapse:
            worse = np.where(generator.random(shape) < drop / (0.1 + 0.85 * 2 / 3), 0.0, chances)
        return (generator.binomial(count, worse) - generator.binomial(count, chances)) / count

    return draw


def areas(generator: np.random.Generator, shape: int, drop: float) -> Floats:
    """Draw differences of areas: a question is right from some budget of five on, and a drop loses whole questions."""
    old, new = (np.minimum(4, generator.poisson(1.5, shape)) for _ in range(2))
    is_same = generator.random(shape) < 0.8
    weights = np.array([1.0, 0.875, 0.625, 0.375, 0.125])
    first, second = weights[old], weights[np.where(is_same, old, new)]
    mean = float(weights @ [*(_poisson(1.5, k) for k in range(4)), 1 - sum(_poisson(1.5, k) for k in range(4))])
    return np.where(generator.random(shape) < drop / mean, 0.0, second) - first


def _poisson(rate: float, count: int) -> float:
    return float(np.exp(-rate) * rate**count / np.prod(range(1, count + 1)))


def fractions(pairs: int, generator: np.random.Generator) -> bool:
    """Print the shares of outcomes that are fractions that are called equivalent."""
    print("fractions: called equivalent at the margin, and if equally good (printed), %")
    kinds: dict[str, Draw] = {
        "4 samples, shift": samples(4, is_collapse=False),
        "4 samples, collapse": samples(4, is_collapse=True),
        "16 samples, collapse": samples(16, is_collapse=True),
        "areas, collapse": areas,
    }
    is_good = True
    for (name, draw), drop in product(kinds.items(), (0.05, 0.02)):
        worse, equal = (draw(generator, POPULATION, one) for one in (drop, 0.0))
        equal = np.concatenate([equal, -equal])
        # Exactly at the margin, whatever questions make up the population.
        margin, churn = -float(worse.mean()), observed_churn(equal)
        for n in (100, 200, 500, 1000):
            false, power = (called(one, n, margin, pairs, generator) for one in (worse, equal))
            printed = fraction_power(churn, margin, ALPHA, n)
            is_good &= is_rare(false, pairs) and abs(power - printed) <= 0.02
            print(
                f"{n:>6} questions, margin {drop}, {name}: {100 * false:4.1f}  {100 * power:5.1f} ({100 * printed:.1f})"
            )
    return is_good


def called(population: Floats, n: int, margin: float, pairs: int, generator: np.random.Generator) -> float:
    """Return the share of pairs with n questions from a population of differences that are called equivalent."""
    values, counts = np.unique(population, return_counts=True)
    drawn = generator.multinomial(n, counts / len(population), size=pairs) / n
    won, lost = (Moments(drawn @ one, drawn @ one**2) for one in (np.maximum(values, 0), np.maximum(-values, 0)))
    low, _ = newcombe_bounds(n, won, lost, level=1 - 2 * ALPHA)
    return float((low > -margin).mean())


def unbounded(generator: np.random.Generator) -> bool:
    """Print the shares of a metric without bounds; its test resamples, so that fewer pairs are drawn."""
    print(f"no bounds: called equivalent at the margin, and if equally good (printed), % of {RESAMPLED} pairs")
    is_good = True
    for n, scale in ((100, 0.5),):
        margin = 2.5 * scale / 10

        def share(drop: float, n: int = n, scale: float = scale, margin: float = margin) -> float:
            values = scale * generator.laplace(size=(RESAMPLED, n)) / sqrt(2) - drop
            return float(np.mean([equivalence_test(one, margin=margin, bounded=False).p <= ALPHA for one in values]))

        false, power = share(margin), share(0.0)
        printed = equivalence_reach(
            np.array([-scale, scale] * (n // 2)), margin=margin, level=ALPHA, bounded=False
        ).power
        is_good &= is_rare(false, RESAMPLED)
        print(f"{n:>6} questions, spread {scale}: {100 * false:4.1f}  {100 * power:5.1f} ({100 * printed:.1f})")
    return is_good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000)
    pairs, generator = parser.parse_args().pairs, np.random.default_rng(0)
    return int(not all([answers(pairs, generator), fractions(pairs, generator), unbounded(generator)]))


if __name__ == "__main__":
    sys.exit(main())
