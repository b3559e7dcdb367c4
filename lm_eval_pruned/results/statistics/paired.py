"""Paired tests on per-question differences of two runs: McNemar's test and the sign-flip permutation test."""

from __future__ import annotations

from fractions import Fraction
from math import gcd, lcm
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.results.limits import MAX_DENOMINATOR, MAX_SUM

Floats = NDArray[np.float64]
Alternative = Literal["two-sided", "less"]

# Up to this many changed questions, all 2^n sign patterns are tried;
ENUMERATED = 16
# for more, this many are drawn, unless the differences are multiples of one fraction.
DRAWS = 19_999
SEED = 0
# Sums that differ only by rounding are ties.
TIE = 1e-9
DECIMALS = 12

_BLOCK = 2_000_000


class PairedTest(NamedTuple):
    """A p-value and the name of the test that gave it."""

    p: float
    name: str


def paired_test(differences: Floats, alternative: Alternative) -> PairedTest:
    """Test whether differences, one per question, are as likely to be gains as losses.

    McNemar's test if all differences are -1, 0 or 1 (answers right or wrong), otherwise sign flips.

    Raises:
        ArgumentError: there are no differences, or one is not finite.

    Example:
        >>> paired_test(np.array([-1.0, -1.0, -1.0, 0.0]), "less")
        PairedTest(p=0.125, name='McNemar')
        >>> paired_test(np.array([-0.5, -0.25, -0.25]), "less")
        PairedTest(p=0.125, name='sign flips, counted')
    """
    if not differences.size or not np.isfinite(differences).all():
        raise ArgumentError("a paired test needs one finite difference for each of at least one question")
    rounded = differences.round(DECIMALS)
    if is_mcnemar(rounded):
        losses, gains = int((rounded < 0).sum()), int((rounded > 0).sum())
        return PairedTest(mcnemar(losses, gains, alternative), "McNemar")
    return sign_flips(rounded, alternative)


def is_mcnemar(differences: Floats) -> bool:
    """Whether all differences are -1, 0 or 1, up to rounding, so that McNemar's test applies."""
    return bool(np.isin(differences.round(DECIMALS), (-1.0, 0.0, 1.0)).all())


def lattice_step(differences: Floats) -> float:
    """Return half the distance of the sums that sign flips of differences can give; 0 where that is arbitrarily small.

    Example:
        >>> lattice_step(np.array([0.5, -1.0, 0.0])), lattice_step(np.array([0.0])), lattice_step(np.array([0.1, 1e-7]))
        (0.5, 1.0, 0.0)
    """
    changed = differences[differences != 0]
    if not changed.size:
        return 1.0
    integers = _as_integers(changed)
    if integers is None or not integers.any():
        return 0.0
    return float(gcd(*integers.tolist()) * np.abs(changed).max() / np.abs(integers).max())


def mcnemar(losses: int, gains: int, alternative: Alternative) -> float:
    """Return the exact p-value of a number of questions lost and a number gained.

    Under the null hypothesis losses ~ Binomial(losses + gains, 1/2); `less` asks whether there are too many losses.

    Example:
        >>> mcnemar(5, 0, "less"), mcnemar(5, 0, "two-sided"), mcnemar(0, 0, "two-sided")
        (0.03125, 0.0625, 1.0)

    Reference: McNemar, Psychometrika 12 (1947); exact form as in Agresti, Categorical Data Analysis, 10.1.
    """
    sides = {"less": gains, "two-sided": min(losses, gains)}
    tail = float(stats.binom.cdf(sides[alternative], losses + gains, 0.5))
    return tail if alternative == "less" else min(1.0, 2 * tail)


def sign_flips(differences: Floats, alternative: Alternative) -> PairedTest:
    """Sign-flip permutation test: how often a sum under random signs is as extreme as the observed one.

    Exact for multiples of one fraction (as means over samples are), by counting the ways to each sum, and for few
    questions, by trying all signs. Otherwise p = (1 + hits) / (1 + draws) over signs drawn from a fixed seed.

    Reference: Fisher, The Design of Experiments (1935), section 21; the last formula is Phipson and Smyth, 2010.
    """
    changed = differences[differences != 0]
    integers = _as_integers(changed)
    if integers is not None:
        return PairedTest(_count_sums(integers, alternative), "sign flips, counted")
    observed = float(changed.sum())
    if changed.size <= ENUMERATED:
        signs = 1.0 - 2 * (np.arange(2**changed.size)[:, None] >> np.arange(changed.size) & 1)
        return PairedTest(float(_extreme(signs @ changed, observed, alternative).mean()), "sign flips, all")
    generator = np.random.default_rng(SEED)
    hits, remaining = 0, DRAWS
    while remaining:
        rows = min(remaining, max(1, _BLOCK // changed.size))
        signs = 2.0 * generator.integers(0, 2, size=(rows, changed.size), dtype=np.int8) - 1
        hits += int(_extreme(signs @ changed, observed, alternative).sum())
        remaining -= rows
    return PairedTest((1 + hits) / (1 + DRAWS), f"sign flips, {DRAWS} draws")


def _as_integers(differences: Floats) -> NDArray[np.int64] | None:
    """Return the differences times their common denominator; None if there is none, or counting takes too long."""
    denominator = 1
    for value in np.unique(np.abs(differences)).tolist():
        fraction = Fraction(value).limit_denominator(MAX_DENOMINATOR)
        denominator = lcm(denominator, fraction.denominator)
        if abs(float(fraction) - value) > TIE or denominator > MAX_DENOMINATOR:
            return None
    integers = np.rint(differences * denominator).astype(np.int64)
    return integers if int(np.abs(integers).sum()) <= MAX_SUM else None


def _count_sums(differences: NDArray[np.int64], alternative: Alternative) -> float:
    """Return the p-value from the exact distribution of the sum.

    That is the convolution, over the sizes d of differences, of d (2 Binomial(n, 1/2) - n) for n questions.
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    probabilities = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        steps = np.zeros(2 * size * count + 1)
        steps[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        probabilities = np.convolve(probabilities, steps)
    reach = len(probabilities) // 2
    sums = np.arange(-reach, reach + 1, dtype=np.float64)
    return min(1.0, float(probabilities[_extreme(sums, float(differences.sum()), alternative)].sum()))


def _extreme(sums: Floats, observed: float, alternative: Alternative) -> NDArray[np.bool_]:
    if alternative == "less":
        return sums <= observed + TIE
    return np.abs(sums) >= abs(observed) - TIE
