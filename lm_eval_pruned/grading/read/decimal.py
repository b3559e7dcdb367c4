"""A number is read as an exact fraction, together with how many of its digits were shown."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from lm_eval_pruned.grading.limits import MAX_DECIMAL_EXPONENT, MAX_NUMBER_CHARACTERS

# With fewer digits shown, too many values round to the same decimal for it to name one of them.
MIN_SIGNIFICANT_DIGITS = 4

_DECIMAL = r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+"
_SCIENTIFIC = re.compile(
    rf"(?P<mantissa>{_DECIMAL})(?:\\cdot10\^\{{(?P<exponent>[+-]?[0-9]+)\}}|[eE](?P<short>[+-]?[0-9]+))?"
    r"|10\^\{(?P<power>[+-]?[0-9]+)\}"
)
_FRACTION = re.compile(
    rf"(?P<whole>[0-9]+(?= [0-9]|\\))? ?"
    rf"(?:\\frac\{{(?P<above>-?(?:{_DECIMAL}))\}}\{{(?P<below>-?(?:{_DECIMAL}))\}}|(?P<left>[0-9]+)/(?P<right>[0-9]+))"
)


class Number(NamedTuple):
    """An exact value. `step` is one unit of the last decimal place shown, None where no decimal point was."""

    value: Fraction
    step: Fraction | None
    significant: int


def read_number(form: str) -> Number | None:
    r"""Read a normal form as a number, or return None unless the whole of it is one.

    Integers, decimals, `\frac{a}{b}`, `a/b`, mixed numbers and scientific notation are numbers.

    Example:
        >>> read_number("025"), read_number(r"1\frac{1}{2}").value
        (Number(value=Fraction(25, 1), step=None, significant=2), Fraction(3, 2))
        >>> read_number("0.3330").step, read_number("0.3330").significant
        (Fraction(1, 10000), 4)
    """
    if len(form) > MAX_NUMBER_CHARACTERS:
        return None
    sign, body = (-1, form[1:]) if form.startswith("-") else (1, form.removeprefix("+"))
    number = _read_scientific(body) or _read_fraction(body)
    return number and number._replace(value=sign * number.value)


def rounds_to(exact: Number, decimal: Number) -> bool:
    """Tell whether `decimal` is `exact` rounded to the digits shown; integers and decimals never round.

    Example:
        >>> rounds_to(read_number("2/3"), read_number("0.6667")), rounds_to(read_number("2/3"), read_number("0.67"))
        (True, False)
    """
    if exact.step is not None or exact.value.denominator == 1 or decimal.step is None:
        return False
    return decimal.significant >= MIN_SIGNIFICANT_DIGITS and 2 * abs(exact.value - decimal.value) <= decimal.step


def _read_scientific(body: str) -> Number | None:
    match = _SCIENTIFIC.fullmatch(body)
    if not match:
        return None
    mantissa = match["mantissa"] or "1"
    exponent = int(match["exponent"] or match["short"] or match["power"] or 0)
    if abs(exponent) > MAX_DECIMAL_EXPONENT:
        return None
    scale = Fraction(10) ** exponent
    whole, _, decimals = mantissa.partition(".")
    step = scale / 10 ** len(decimals) if decimals else None
    return Number(Fraction(mantissa) * scale, step, len((whole + decimals).lstrip("0")))


def _read_fraction(body: str) -> Number | None:
    match = _FRACTION.fullmatch(body)
    if not match:
        return None
    above, below = Fraction(match["above"] or match["left"]), Fraction(match["below"] or match["right"])
    if not below:
        return None
    if match["whole"] is None:
        return Number(above / below, None, 0)
    # Only a proper fraction makes a mixed number: what 3 \frac{7}{2} means is anyone's guess.
    proper = 0 < above < below and above.denominator == below.denominator == 1
    return Number(int(match["whole"]) + above / below, None, 0) if proper else None
