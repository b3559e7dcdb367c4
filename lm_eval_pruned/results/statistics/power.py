"""Power of a paired comparison: the smallest drop that it finds significant with a probability of 80 %."""

from __future__ import annotations

from math import log2, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

POWER = 0.8
# Smaller drops count as zero.
_STEP = 1e-9


def detectable_drop(
    differences: NDArray[np.float64], *, alpha: float, margin: float = 0.0, is_two_sided: bool = False
) -> float | None:
    """Return the smallest true drop beyond `margin` that a paired test at `alpha` finds with the probability POWER.

    The noise in the observed differences d stays, and a drop of x adds losses of their typical size
    r = mean d^2 / mean |d| (1, a whole answer, where nothing changed). So E d^2 = psi(x) = r (mean |d| - |mean d| + x),
    and x solves

        (x - margin) sqrt(n) = z_alpha sqrt(psi - 2 margin x + margin^2) + z_power sqrt(psi - x^2).

    None if even a loss on every question would not be significant, as for 4 questions at alpha = 0.05.

    Args:
        differences: new - old for each question, [questions].
        alpha: significance level.
        margin: drop that is tolerated, a fraction.
        is_two_sided: whether the test also asks for gains.

    Example:
        >>> round(detectable_drop(np.zeros(30), alpha=0.05), 3)
        0.192
        >>> detectable_drop(np.zeros(4), alpha=0.05)

    Reference: Connor, Biometrics 43 (1987), to which this reduces for margin = 0 and outcomes that are right or wrong.
    """
    level = alpha / 2 if is_two_sided else alpha
    n = len(differences)
    if n < -log2(level):
        return None
    size = float(np.abs(differences).mean())
    typical = float(np.square(differences).mean()) / size if size else 1.0
    noise = typical * (size - abs(float(differences.mean())))
    z_alpha, z_power = stats.norm.isf(level), stats.norm.isf(1 - POWER)

    def excess(drop: float) -> float:
        psi = noise + typical * drop
        null, alternative = psi - 2 * margin * drop + margin**2, psi - drop**2
        return float((drop - margin) * sqrt(n) - z_alpha * sqrt(max(0.0, null)) - z_power * sqrt(max(0.0, alternative)))

    if excess(1.0) < 0:
        return None
    # At the margin itself both sides are 0 if there is no noise.
    low = margin + _STEP
    return low if excess(low) >= 0 else float(optimize.brentq(excess, low, 1.0))
