"""A measured answer is a value and its unit; a number base counts as a unit of the digits it reads."""

from __future__ import annotations

import re
from typing import NamedTuple

from lm_eval_pruned.grading.tokens import NUMBER_WORDS


class Quantity(NamedTuple):
    """A normal form without its unit, and the unit's one name, empty where there is none."""

    value: str
    unit: str


_NAMES = {
    "percent": "\\% percent",
    "degree": "^{\\circ} degree degrees",
    "radian": "radian radians rad",
    "dollar": "\\$ dollar dollars usd",
    "cent": "\u00a2 cent cents",
    "euro": "\u20ac euro euros",
    "pound sterling": "\u00a3",
    "yen": "\u00a5 yen",
    "rupee": "\u20b9 rupee rupees",
    "mm": "mm millimeter millimeters",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "m": "\\text{m} meter meters metre metres",
    "km": "km kilometer kilometers kilometre kilometres",
    "inch": "in inch inches",
    "foot": "ft foot feet",
    "yard": "yd yard yards",
    "mile": "mi mile miles",
    "gram": "\\text{g} gram grams",
    "kg": "kg kilogram kilograms",
    "pound": "lb lbs pound pounds",
    "ounce": "oz ounce ounces",
    "liter": "\\text{L} liter liters litre litres",
    "gallon": "gallon gallons",
    "second": "\\text{s} sec second seconds",
    "minute": "min minute minutes",
    "hour": "\\text{h} hr hrs hour hours",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "year years",
    "unit": "unit units",
    "cup": "cup cups",
    "mile/hour": "mph",
    "km/hour": "kph kmh",
}
_UNITS = {spelling: unit for unit, spellings in _NAMES.items() for spelling in spellings.split()}
WORDS = frozenset(filter(str.isalpha, (*_UNITS, "sq")))
_POWERS = {"square": "^{2}", "sq": "^{2}", "sq.": "^{2}", "cubic": "^{3}", "": ""}

# Bounded, so that the search stays linear on a long run of letters.
_SUFFIX = re.compile(
    r"(?<![\\A-Za-z])(?P<power>square|sq\.?|cubic|)"
    r"(?P<name>[\u00a2-\u00a5\u20a0-\u20bf]|\\%|\\\$|\^\{\\circ\}|\\text\{[A-Za-z]\}|[a-z]{1,20}(?:/[a-z]{1,9})?)"
    r"(?P<exponent>\^\{[23]\})?\Z"
)
# Without brackets: those of a tuple part its members, too.
_MEMBERS = re.compile(r"[^()\[\]=<>]*")
_PRICED = re.compile(r"(?P<minus>-?)(?P<sign>\\\$|[\u00a2-\u00a5\u20a0-\u20bf])(?P<value>.+)", re.DOTALL)
_ORDINAL = re.compile(r"(?P<value>[0-9]+)(?:\^\{)?(?:st|nd|rd|th)\}?")
# Whatever is counted is a unit, but for words that change the number.
_COUNTED = re.compile(r"(?P<value>-?(?:[0-9][0-9., ]*|[0-9]*\\frac\{[0-9]+\}\{[0-9]+\}))(?P<noun>[a-z]{4,40})")
# What stands in a text font behind a number is a unit whatever it is, and so is what it is multiplied or divided by.
_NAMED = re.compile(
    r"(?P<value>-?[0-9][0-9., ]*)"
    r"(?P<unit>\\text\{[A-Za-z]\}(?:(?:\\cdot ?|/)(?:\\text\{[A-Za-z]\}|[A-Za-z]{1,4}))?(?:\^\{-?[0-9]\})?)"
)
_NO_UNITS = (
    *("hundred", "thousand", "million", "billion", "trillion", "dozen", "score", "half", "halves", "third", "quarter"),
    *("fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "percent", "plus", "minus", "times", "over"),
    *(
        "squared",
        "cubed",
        "factorial",
        "north",
        "south",
        "east",
        "west",
        "below",
        "above",
        "left",
        "right",
        "more",
        "less",
    ),
    *("sqrt", "frac", "infinit", "theta", "prime", "base", "mod"),
)
# The degrees of an angle belong to its sine.
_ANGLE = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_BASED = re.compile(
    r"(?P<digits>-?(?=[A-Fa-f]{0,9}[0-9])[0-9A-Fa-f]{1,200})(?:_\{\(?|base)(?P<base>[0-9]{1,2}|[a-z]{3,9})(?:\)?\})?"
)


def split_unit(form: str) -> Quantity:
    r"""Part a normal form into value and unit.

    A unit must follow a digit or a closing bracket, and a variable is none: `5m` is five times m.

    Example:
        >>> split_unit("864inches^{2}"), split_unit("52_{8}")
        (Quantity(value='864', unit='inch^{2}'), Quantity(value='52', unit='base 8'))
        >>> split_unit("5m"), split_unit(r"\$5")
        (Quantity(value='5m', unit=''), Quantity(value='5', unit='dollar'))
    """
    members = form.split(", ") if ", " in form and _MEMBERS.fullmatch(form) else []
    if len(members) > 1:
        values, units = zip(*map(split_unit, members), strict=True)
        return Quantity(", ".join(values), units[0]) if len(set(units)) == 1 else Quantity(form, "")
    based = _BASED.fullmatch(form)
    if based:
        return Quantity(based["digits"].upper(), f"base {NUMBER_WORDS.get(based['base'], based['base'])}")
    ordinal = _ORDINAL.fullmatch(form)
    if ordinal:
        return Quantity(ordinal["value"], "ordinal")
    priced = _PRICED.fullmatch(form)
    if priced and priced["sign"] in _UNITS:
        return Quantity(priced["minus"] + priced["value"], _UNITS[priced["sign"]])
    suffix = None if _ANGLE.search(form) else _SUFFIX.search(form)
    unit = _unit(suffix["name"]) if suffix else None
    if suffix and unit and suffix.start() and form[suffix.start() - 1] in "0123456789.}) ":
        exponent = suffix["exponent"] or _POWERS[suffix["power"]]
        return Quantity(form[: suffix.start()], unit + exponent)
    named = _NAMED.fullmatch(form)
    if named:
        return Quantity(named["value"], named["unit"])
    counted = _COUNTED.fullmatch(form)
    if counted and not counted["noun"].startswith(_NO_UNITS):
        return Quantity(counted["value"], counted["noun"].removesuffix("s"))
    return Quantity(form, "")


def _unit(spelling: str) -> str | None:
    """Return the name of a unit, or of a rate of two of them, spelt with a stroke or with "per"."""
    if spelling in _UNITS:
        return _UNITS[spelling]
    above, _, below = spelling.partition("/" if "/" in spelling else "per")
    one, other = (_UNITS.get(part) or _UNITS.get(f"\\text{{{part}}}") for part in (above, below))
    return f"{one}/{other}" if one and other else None
