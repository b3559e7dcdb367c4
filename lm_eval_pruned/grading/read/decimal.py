"""Numbers as exact fractions, with the precision at which they were written, and the rule for rounded decimals."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

# With fewer digits, too many different values round to the same decimal.
MIN_SIGNIFICANT_DIGITS = 4


class Number(NamedTuple):
    """An exact value and how precisely it was written.

    `step` is one unit of the last decimal place shown, None without a decimal point; `significant` is the number of
    significant digits shown.
    """

    value: Fraction
    step: Fraction | None
    significant: int

    @property
    def tolerance(self) -> Fraction | None:
        """The largest rounding error of this decimal, or None if it shows too few digits to be a rounded value."""
        if self.step is None or self.significant < MIN_SIGNIFICANT_DIGITS:
            return None
        # The last of sixteen digits of a computed value may be wrong.
        return self.step / 2 if self.significant < 16 else max(self.step / 2, abs(self.value) / 2**52)


def read_digits(text: str) -> Number:
    """Read digits with at most one decimal point, without a sign; no digits at all are zero.

    Example:
        >>> read_digits("12.50"), read_digits("012").significant
        (Number(value=Fraction(25, 2), step=Fraction(1, 100), significant=4), 2)
    """
    whole, point, decimals = text.partition(".")
    digits, unit = whole + decimals, 10 ** len(decimals)
    return Number(Fraction(int(digits or "0"), unit), Fraction(1, unit) if point else None, len(digits.lstrip("0")))


def rounds_to(exact: Number, decimal: Number) -> bool:
    """Return whether `decimal` is `exact` rounded to the digits that it shows; integers and decimals are never rounded.

    Example:
        >>> third = Number(Fraction(1, 3), None, 0)
        >>> rounds_to(third, read_digits("0.3333")), rounds_to(third, read_digits("0.33"))
        (True, False)
    """
    if exact.step is not None or exact.value.denominator == 1 or decimal.tolerance is None:
        return False
    return abs(exact.value - decimal.value) <= decimal.tolerance
