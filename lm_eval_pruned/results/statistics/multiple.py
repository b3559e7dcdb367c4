"""Holm's correction for multiple comparisons: without it one comparison in twenty is significant by chance."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted by Holm's step-down rule, in the given order.

    Sorted ascending, p~_i = max over j <= i of min(1, (m - j) p_j), j from 0. Rejecting where p~ <= alpha keeps the
    probability of any false rejection in the table at most alpha, however the comparisons depend on one another.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
        [0.03, 0.06, 0.06, 0.02]

    Reference: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
