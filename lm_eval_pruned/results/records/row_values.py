"""Values of a metric in rows of samples files: numbers, and what the harness aggregates to rates and Brier scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple


class RowValue(NamedTuple):
    """The metric of one question, and what it counts in the mean over questions; None if all count the same."""

    value: float
    weight: float | None = None


def row_value(metric: str, given: object) -> RowValue | None:
    """Return the metric of a row, None if it is not a number and cannot be made one.

    Up to 0.3 numbers are written as text. Rows of `bits_per_byte` hold a log-likelihood in nats and the bytes of the
    document, those of `brier_score` the index of the right choice and the probabilities.

    Example:
        >>> row_value("acc", "True"), row_value("bits_per_byte", [-6.931471805599453, 5]), row_value("bleu", ["a", "b"])
        (RowValue(value=1.0, weight=None), RowValue(value=2.0, weight=5.0), None)
        >>> row_value("brier_score", [1, "[0.25 0.75]"])
        RowValue(value=0.125, weight=None)
    """
    if isinstance(given, str):
        try:
            return RowValue({"True": 1.0, "False": 0.0}[given] if given in ("True", "False") else float(given))
        except ValueError:
            return None
    if isinstance(given, int | float):
        return RowValue(given)
    if isinstance(given, list) and len(given) == 2 and metric in _PARTS:
        return _PARTS[metric](*given)
    return None


def _bits_per_byte(log_likelihood: object, size: object) -> RowValue | None:
    if not isinstance(log_likelihood, int | float) or not isinstance(size, int | float) or size < 0:
        return None
    # A document without text has nothing to predict.
    return RowValue(-log_likelihood / size / math.log(2) if size else 0.0, float(size))


def _brier_score(right: object, probabilities: object) -> RowValue | None:
    # An array is written as text, shortened where it is long.
    listed = probabilities.strip("[] ").split() if isinstance(probabilities, str) else probabilities
    if not isinstance(right, int) or not isinstance(listed, list) or not 0 <= right < len(listed):
        return None
    try:
        given = [float(one) for one in listed]
    except (TypeError, ValueError):
        return None
    return RowValue(sum((one - (index == right)) ** 2 for index, one in enumerate(given)))


_PARTS: Mapping[str, Callable[[object, object], RowValue | None]] = MappingProxyType(
    {"bits_per_byte": _bits_per_byte, "brier_score": _brier_score}
)
