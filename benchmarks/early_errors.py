"""How often the verdicts of `sweep --stop early` are wrong.

    python benchmarks/early_errors.py [--sweeps 10000]

Sweeps of a dense cell and 13 others, 200 questions, answers simulated from the seed 0, judged after every question and
at the end as the leaderboard judges. The exit code is 1 if more than 5 % of the sweeps have a false drop or gain, or a
false equivalence. Ten minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from functools import cache
from math import log
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))

from lm_eval_pruned.results.statistics.early import LOOKS, log_e_changed, log_e_same
from lm_eval_pruned.results.statistics.multiple import holm
from lm_eval_pruned.results.statistics.paired import mcnemar

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

ALPHA, MARGIN = 0.05, 0.1
CELLS, QUESTIONS = 13, 200
# Sweeps that are simulated at once.
ROWS = 500


class Counted(NamedTuple):
    """Questions lost and won by each cell after each question, [sweeps cells questions]."""

    lost: Counts
    won: Counts


class Verdicts(NamedTuple):
    """Whether each cell is called changed while questions are asked, changed ever, and equivalent, [sweeps cells]."""

    early: Booleans
    changed: Booleans
    equivalent: Booleans


def simulate(accuracies: Floats, generator: np.random.Generator) -> Counted:
    """Count what cells with these chances of a right answer, the dense one's first, lose and win.

    Half of the questions are answered by one draw for all cells, so that cells resemble the dense one and each other.
    """
    shared = generator.random((ROWS, 1, QUESTIONS), dtype=np.float32)
    own = generator.random((ROWS, 1 + CELLS, QUESTIONS), dtype=np.float32)
    drawn = np.where(generator.random((ROWS, 1, QUESTIONS), dtype=np.float32) < 0.5, shared, own)
    right = drawn < accuracies[:, None]
    old, new = right[:, :1], right[:, 1:]
    return Counted(*(np.cumsum(one, axis=2, dtype=np.int64) for one in (old & ~new, new & ~old)))


def judged(counted: Counted) -> Verdicts:
    """Judge every cell after every question, and those that are undecided by McNemar's test at the end."""
    base = QUESTIONS + 1
    keys = (counted.lost * base + counted.won) * base + np.arange(1, base)
    distinct, places = np.unique(keys, return_inverse=True)
    said = np.array([says_of(key // base**2, key // base % base, key % base) for key in distinct.tolist()])
    says = said[places.reshape(keys.shape)]
    first = np.where(says.any(axis=-1), np.arange(QUESTIONS), QUESTIONS).min(axis=-1)
    is_open = first == QUESTIONS
    verdict = np.take_along_axis(says, np.minimum(first, QUESTIONS - 1)[..., None, None], axis=2)[:, :, 0]
    early = ~is_open & verdict[..., 0]
    at_end = [ends(*one) for one in zip(counted.lost[..., -1], counted.won[..., -1], is_open, early, strict=True)]
    return Verdicts(early, early | np.array(at_end), ~is_open & ~early)


@cache
def says_of(lost: int, won: int, asked: int) -> tuple[bool, bool]:
    """Whether these counts show a change, and whether they exclude one of the margin."""
    gains = np.repeat([-1.0, 1.0, 0.0], [lost, won, asked - lost - won])
    changed = log_e_changed(gains) >= log(LOOKS * CELLS / ALPHA)
    return changed, log_e_same(gains, MARGIN) >= log(CELLS / ALPHA)


def ends(lost: Counts, won: Counts, is_open: Booleans, early: Booleans) -> Booleans:
    """Whether the leaderboard of a sweep calls each cell [cells] significant that was asked all questions.

    By Holm's correction over the table; p is doubled where a cell was stopped.
    """
    looks = 1 if is_open.all() else LOOKS
    whole = [looks * exact(*pair) for pair in zip(lost.tolist(), won.tolist(), strict=True)]
    p = np.where(is_open, whole, np.where(early, 0.0, 1.0))
    return is_open & (np.array(holm(np.minimum(p, 1).tolist())) <= ALPHA)


@cache
def exact(lost: int, won: int) -> float:
    """Return p of McNemar's test."""
    return mcnemar(lost, won, "two-sided")


def errors(dense: float, cells: Floats, sweeps: int, generator: np.random.Generator) -> bool:
    """Print how many sweeps have any false verdict; return whether no kind of them is too frequent."""
    false: list[Booleans] = []
    for _ in range(0, sweeps, ROWS):
        found = judged(simulate(np.append(dense, cells), generator))
        is_equal, is_apart = cells == dense, np.abs(cells - dense) >= MARGIN - 1e-9
        kinds = (found.early & is_equal, found.changed & is_equal, found.equivalent & is_apart)
        false.append(np.stack([kind.any(axis=1) for kind in kinds]))
    early, changed, equivalent = np.concatenate(false, axis=1).mean(axis=1)
    cases = f"dense {dense}, {(cells == dense).sum()} cells equal, {(cells != dense).sum()} worse by {MARGIN}"
    changes = f"a false drop or gain in {100 * early:.2f} % of the sweeps before the end, {100 * changed:.2f} % with it"
    print(f"{cases}: {changes}, a false equivalence in {100 * equivalent:.2f} %", flush=True)
    return max(changed, equivalent) <= ALPHA


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=10_000)
    sweeps, generator = parser.parse_args().sweeps, np.random.default_rng(0)
    worse = [np.full(CELLS, 0), np.full(CELLS, 1), np.arange(CELLS) % 2]
    cases = [(dense, dense - MARGIN * which) for dense in (0.95, 0.5, 0.12) for which in worse]
    are_rare = [errors(dense, cells, sweeps, generator) for dense, cells in cases]
    return int(not all(are_rare))


if __name__ == "__main__":
    sys.exit(main())
