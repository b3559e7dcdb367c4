"""Paired tests: two runs answered the same questions, so only what changed from question to question tells."""

from __future__ import annotations

from fractions import Fraction
from math import lcm
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lm_eval_pruned.errors import ArgumentError

Floats = NDArray[np.float64]
Alternative = Literal["two-sided", "less"]

# All 2^n signs are tried up to so many questions that changed,
ENUMERATED = 16
# and so many are drawn where there are more and the differences are no multiples of one fraction.
DRAWS = 19_999
SEED = 0
# Accuracies are means over at most a few hundred samples: finer differences are no fractions but measurements.
MAX_DENOMINATOR = 1_000
# Largest sum whose distribution is counted: the time grows with its square, to half a second.
MAX_SUM = 40_000
# Sums that differ by rounding alone are ties.
TIE = 1e-9
_DECIMALS = 12

_BLOCK = 2_000_000


class PairedTest(NamedTuple):
    """A p-value and the name of the test that gave it."""

    p: float
    name: str


def paired_test(differences: Floats, alternative: Alternative) -> PairedTest:
    """Test whether differences, one a question, are as likely to be gains as losses.

    Outcomes that are right or wrong differ by -1, 0 or 1: McNemar. All others: sign flips.

    Raises:
        ArgumentError: there are none, or one is not finite.

    Example:
        >>> paired_test(np.array([-1.0, -1.0, -1.0, 0.0]), "less")
        PairedTest(p=0.125, name='McNemar')
        >>> paired_test(np.array([-0.5, -0.25, -0.25]), "less")
        PairedTest(p=0.125, name='sign flips, counted')
    """
    if not differences.size or not np.isfinite(differences).all():
        raise ArgumentError("a paired test needs one finite difference for each of at least one question")
    rounded = differences.round(_DECIMALS)
    if np.isin(rounded, (-1.0, 0.0, 1.0)).all():
        losses, gains = int((rounded < 0).sum()), int((rounded > 0).sum())
        return PairedTest(mcnemar(losses, gains, alternative), "McNemar")
    return sign_flips(rounded, alternative)


def mcnemar(losses: int, gains: int, alternative: Alternative) -> float:
    """Return the exact p-value of so many questions lost and so many gained.

    Under the hypothesis losses ~ Binomial(losses + gains, 1/2); `less` asks whether there are too many losses.

    Example:
        >>> mcnemar(5, 0, "less"), mcnemar(5, 0, "two-sided"), mcnemar(0, 0, "two-sided")
        (0.03125, 0.0625, 1.0)

    Reference: McNemar, Psychometrika 12 (1947); exact form as in Agresti, Categorical Data Analysis, 10.1.
    """
    sides = {"less": gains, "two-sided": min(losses, gains)}
    tail = float(stats.binom.cdf(sides[alternative], losses + gains, 0.5))
    return tail if alternative == "less" else min(1.0, 2 * tail)


def sign_flips(differences: Floats, alternative: Alternative) -> PairedTest:
    """Return how often a sum of the differences under random signs is as extreme as the one observed.

    Exact for multiples of one fraction (means over samples are), by counting the ways to each sum, and for few
    questions, by trying all signs. Otherwise p = (1 + hits) / (1 + draws) over signs drawn from a fixed seed.

    Reference: Fisher, The Design of Experiments (1935), section 21; the last formula is Phipson and Smyth, 2010.
    """
    changed = differences[differences != 0]
    whole = _whole(changed)
    if whole is not None:
        return PairedTest(_counted(whole, alternative), "sign flips, counted")
    observed = float(changed.sum())
    if changed.size <= ENUMERATED:
        signs = 1.0 - 2 * (np.arange(2**changed.size)[:, None] >> np.arange(changed.size) & 1)
        return PairedTest(float(_extreme(signs @ changed, observed, alternative).mean()), "sign flips, all")
    generator = np.random.default_rng(SEED)
    hits, left = 0, DRAWS
    while left:
        rows = min(left, max(1, _BLOCK // changed.size))
        signs = 2.0 * generator.integers(0, 2, size=(rows, changed.size), dtype=np.int8) - 1
        hits += int(_extreme(signs @ changed, observed, alternative).sum())
        left -= rows
    return PairedTest((1 + hits) / (1 + DRAWS), f"sign flips, {DRAWS} draws")


def _whole(differences: Floats) -> NDArray[np.int64] | None:
    """Return the differences times their common denominator, or None where there is none or counting is too long."""
    denominator = 1
    for value in np.unique(np.abs(differences)).tolist():
        fraction = Fraction(value).limit_denominator(MAX_DENOMINATOR)
        denominator = lcm(denominator, fraction.denominator)
        if abs(float(fraction) - value) > TIE or denominator > MAX_DENOMINATOR:
            return None
    whole = np.rint(differences * denominator).astype(np.int64)
    return whole if int(np.abs(whole).sum()) <= MAX_SUM else None


def _counted(whole: NDArray[np.int64], alternative: Alternative) -> float:
    """Convolve the distributions of the sums of +-d over the n questions of each size d: d (2 Binomial(n, 1/2) - n)."""
    sizes, counts = np.unique(np.abs(whole[whole != 0]), return_counts=True)
    chances = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        steps = np.zeros(2 * size * count + 1)
        steps[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, steps)
    reach = len(chances) // 2
    sums = np.arange(-reach, reach + 1, dtype=np.float64)
    return min(1.0, float(chances[_extreme(sums, float(whole.sum()), alternative)].sum()))


def _extreme(sums: Floats, observed: float, alternative: Alternative) -> NDArray[np.bool_]:
    if alternative == "less":
        return sums <= observed + TIE
    return np.abs(sums) >= abs(observed) - TIE
