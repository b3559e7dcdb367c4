"""How soon e-processes find a drop or exclude one, and how often they are wrong when looked at all the time.

    python benchmarks/sequential.py [--sweeps 10000]

Outcomes of 0 or 1 of 500 questions, simulated from the seed 0. The exit code is 1 if more than 5 % of the sweeps
without a drop (of 1 and of 20 cells, looked at after every question) have a false verdict. A minute on one core.
"""

from __future__ import annotations

import argparse
import sys
from math import log
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))

from lm_eval_pruned.results.statistics.eprocess import BETS, log_e_losses

Floats = NDArray[np.float64]

QUESTIONS, ALPHA, MARGIN = 500, 0.05, 0.05
CELLS = 20
# Cells that are simulated at once.
ROWS = 1_000


def counts(cells: int, lost: float, won: float, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Return the numbers of questions lost and won after each question, [cells questions]."""
    drawn = generator.random((cells, QUESTIONS), dtype=np.float32)
    is_lost, is_won = drawn < lost, (drawn >= lost) & (drawn < lost + won)
    return np.cumsum(is_lost, axis=1, dtype=np.int64), np.cumsum(is_won, axis=1, dtype=np.int64)


def worse_table() -> Floats:
    """Return log e for a drop, [lost won]."""
    lost, won = np.meshgrid(*[np.arange(QUESTIONS + 1.0)] * 2, indexing="ij")
    return log_e_losses(lost, won)


def log_e_same(lost: Floats, won: Floats) -> Floats:
    """Return log e against a drop of MARGIN as `log_e_mean` does, from counts after each question."""
    unchanged = np.arange(1, QUESTIONS + 1) - lost - won
    total = np.full(lost.shape, -np.inf)
    for bet in (np.arange(BETS) + 0.5) / BETS / (1 - MARGIN):
        capital = lost * np.log1p(bet * (MARGIN - 1)) + won * np.log1p(bet * (MARGIN + 1))
        total = np.logaddexp(total, capital + unchanged * np.log1p(bet * MARGIN))
    return total - log(BETS)


def speeds(sweeps: int, generator: np.random.Generator) -> None:
    """Print shares of cells with a verdict, and the mean number of questions, counting 500 where there is none."""
    table = worse_table()
    for lost, won in ((0.10, 0.05), (0.15, 0.05), (0.30, 0.05), (0.50, 0.03)):
        report(f"drop, lost {lost:.2f} won {won:.2f}", table[counts(sweeps, lost, won, generator)])
    for lost, won in ((0.0, 0.0), (0.02, 0.02), (0.05, 0.05)):
        found = log_e_same(*counts(min(sweeps, 2_000), lost, won, generator))
        report(f"no drop of 5 points, lost {lost:.2f} won {won:.2f}", found)


def report(name: str, log_e: Floats) -> None:
    is_sure = log_e >= log(1 / ALPHA)
    is_found = is_sure.any(axis=1)
    asked = np.where(is_found, is_sure.argmax(axis=1) + 1, QUESTIONS)
    print(f"{name}: found {is_found.mean():.3f}, mean {asked.mean():.0f}, median {np.median(asked):.0f} questions")


def errors(sweeps: int, generator: np.random.Generator) -> bool:
    """Print how many sweeps have any false verdict after any question."""
    table, is_good = worse_table(), True
    for churn in (0.02, 0.1, 0.4):
        single = [(table[counts(ROWS, churn / 2, churn / 2, generator)].max(axis=1)) for _ in range(0, sweeps, ROWS)]
        false = float((np.concatenate(single) >= log(1 / ALPHA)).mean())
        cells = [
            table[counts(ROWS, churn / 2, churn / 2, generator)].max(axis=1) for _ in range(0, sweeps, ROWS // CELLS)
        ]
        of_table = np.concatenate(cells).reshape(-1, CELLS).max(axis=1)
        many = float((of_table >= log(CELLS / ALPHA)).mean())
        print(
            f"equal runs, churn {churn}: false drops in {100 * false:.2f} % of the cells, {100 * many:.2f} % of sweeps"
        )
        is_good &= max(false, many) <= ALPHA
    for won in (0.0, 0.02, 0.1):
        highest = [log_e_same(*counts(ROWS, won + MARGIN, won, generator)).max(axis=1) for _ in range(0, sweeps, ROWS)]
        false = float((np.concatenate(highest) >= log(1 / ALPHA)).mean())
        print(f"a drop of 5 points, won {won}: called equivalent in {100 * false:.2f} % of the cells")
        is_good &= false <= ALPHA
    return is_good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=10_000)
    sweeps, generator = parser.parse_args().sweeps, np.random.default_rng(0)
    speeds(sweeps, generator)
    return int(not errors(sweeps, generator))


if __name__ == "__main__":
    sys.exit(main())
