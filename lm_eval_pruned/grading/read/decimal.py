"""Numbers as exact fractions, with the precision at which they were written, and the rule for rounded decimals."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from lm_eval_pruned.grading.limits import MAX_DECIMAL_EXPONENT, MAX_NUMBER_CHARACTERS

# With fewer digits, too many different values round to the same decimal.
MIN_SIGNIFICANT_DIGITS = 4

_DECIMAL = r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+"
_NUMBER = re.compile(
    rf"[+-]?(?:(?P<mantissa>{_DECIMAL})(?:\\cdot10\^\{{(?P<exponent>[+-]?[0-9]+)\}}|[eE](?P<short>[+-]?[0-9]+))?"
    r"|10\^\{(?P<power>[+-]?[0-9]+)\}|(?P<whole>[0-9]+(?= [0-9]|\\))? ?"
    rf"(?:\\frac\{{(?P<above>-?(?:{_DECIMAL}))\}}\{{(?P<below>-?(?:{_DECIMAL}))\}}|(?P<left>[0-9]+)/(?P<right>[0-9]+)))"
)


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
        return None if self.step is None or self.significant < MIN_SIGNIFICANT_DIGITS else self.step / 2


def read_number(form: str) -> Number | None:
    r"""Read a normal form as a number, or return None unless all of it is one.

    Integers, decimals, `\frac{a}{b}`, `a/b`, mixed numbers and scientific notation are numbers.

    Example:
        >>> read_number("025"), read_number(r"1\frac{1}{2}").value
        (Number(value=Fraction(25, 1), step=None, significant=2), Fraction(3, 2))
        >>> read_number("0.3330").step, read_number("0.3330").significant
        (Fraction(1, 10000), 4)
    """
    match = _NUMBER.fullmatch(form) if len(form) <= MAX_NUMBER_CHARACTERS else None
    sign = -1 if form.startswith("-") else 1
    if not match:
        return None
    if not (match["above"] or match["left"]):
        exponent = int(match["exponent"] or match["short"] or match["power"] or 0)
        if abs(exponent) > MAX_DECIMAL_EXPONENT:
            return None
        mantissa, scale = read_digits(match["mantissa"] or "1"), Fraction(10) ** exponent
        return Number(sign * mantissa.value * scale, mantissa.step and mantissa.step * scale, mantissa.significant)
    above, below = Fraction(match["above"] or match["left"]), Fraction(match["below"] or match["right"])
    # Only a proper fraction makes a mixed number: 3 \frac{7}{2} can be read in two ways.
    is_proper = 0 < above < below and above.denominator == below.denominator == 1
    if not below or (match["whole"] and not is_proper):
        return None
    return Number(sign * (int(match["whole"] or 0) + above / below), None, 0)


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
    """Tell whether `decimal` is `exact` rounded to the digits that it shows; integers and decimals are never rounded.

    Example:
        >>> rounds_to(read_number("2/3"), read_number("0.6667")), rounds_to(read_number("2/3"), read_number("0.67"))
        (True, False)
    """
    if exact.step is not None or exact.value.denominator == 1 or decimal.tolerance is None:
        return False
    return abs(exact.value - decimal.value) <= decimal.tolerance
