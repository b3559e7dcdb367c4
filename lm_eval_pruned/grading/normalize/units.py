"""Split a normal form into value and unit; a number base counts as the unit of its digits."""

from __future__ import annotations

import re
from typing import NamedTuple

from lm_eval_pruned.grading.limits import MAX_UNIT_CHARACTERS
from lm_eval_pruned.grading.normalize.unit_table import NAMES, WORDS
from lm_eval_pruned.grading.vocabulary import NUMBER_WORDS, ORDINALS


class Quantity(NamedTuple):
    """A normal form without its unit, and the canonical name of the unit, empty if there is none."""

    value: str
    unit: str


_SIGNS = {
    "\\%": "percent", "^{\\circ}": "degree", "\\$": "dollar", "\u00a2": "cent", "\u20ac": "euro",
    "\u00a3": "pound sterling", "\u00a5": "yen", "\u20b9": "rupee", "usd": "dollar", "eur": "euro",
}  # fmt: skip
# Only names in letters: normal forms have no others.
_NAME = "|".join(sorted(filter(str.isalpha, {*NAMES, *WORDS}), key=len, reverse=True))
_FACTORS = rf"(?:{_NAME})(?:\^\{{-?[0-9]\}})?(?:\\cdot ?(?:{_NAME})(?:\^\{{-?[0-9]\}})?){{0,4}}"
_SUFFIX = re.compile(
    rf"(?<=[0-9.)}}\] ])(?P<unit>(?:{_FACTORS})(?:/{_FACTORS})?)\Z"
    r"|(?P<sign>[\u00a2-\u00a5\u20a0-\u20bf]|\\%|\\\$|\^\{\\circ\})\Z"
)
# Lists without brackets; a tuple's commas separate members, too.
_MEMBERS = re.compile(r"[^()\[\]=<>]*")
_PRICED = re.compile(
    r"(?P<minus>-?)(?P<sign>\\\$|[\u00a2-\u00a5\u20a0-\u20bf]|usd(?=[0-9])|eur(?=[0-9]))(?P<value>.+)", re.DOTALL
)
_SUFFIXES = {"1": "st", "2": "nd", "3": "rd"}
_ORDINAL = re.compile(
    rf"(?:(?P<value>[0-9]+)(?:\^\{{)?(?P<suffix>st|nd|rd|th(?!irds?))\}}?|(?P<word>{'|'.join(ORDINALS)}))"
    r"(?P<noun>[a-z]{3,20})?"
)
# A noun that numbers things, as in "grade 12", and the half of the day after a time.
_NUMBERED = re.compile(
    r"(?P<unit>grade|day|week|month|year|step|stage|level|row|column|page|question|problem|option|team|player|door|"
    r"floor|house|room|box|line|number|no\.)(?P<value>[0-9]{1,9})"
)
_TIME = re.compile(r"(?P<value>[0-9]{1,2}:[0-9]{2})(?P<unit>am|pm)")
# A counted noun is a unit if it is in the plural and does not change the number.
_COUNTED = re.compile(
    r"(?P<value>-?(?:[0-9][0-9., ]*|[0-9]*\\frac\{[0-9]+\}\{[0-9]+\}))"
    r"(?P<noun>\(units?\)|[\u4e00-\u9fff]{1,8}|[a-z]{2,39}[a-rt-z]s|[a-z]{0,20}(?:people|persons|children|women|men|mice|geese|teeth|feet|fish|sheep|dice))(?:/[a-z]{3,12})?"
)
_NOT_COUNTED = re.compile(
    r".*(?:[\u5343\u767e\u4e07\u4ebf\u534a\u5206\u500d\u6210]|ths|[iu]s|less|halves|thirds|quarters|squareds|infinities|tens|(?:hundred|thousand|[bmtr]illion|dozen|score)s|"
    r"lakhs|crores|grands|ones|twos|threes|fours|fives|sixes|sevens|eights|nines|elevens|twelves|teens|t[iy]es|times|"
    r"roots|logs|sines|cosines|tangents|negatives|positives|doubles|infinitys|percents)|"
    r"(?:plus|minus|times|over|north|south|east|west|below|above|left|right|more|base|mod|remainder|except|sqrt|frac).*"
)
# The degrees of an angle belong to the argument of its sine.
ANGLE_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_BASED = re.compile(
    r"(?P<open>\()?(?P<digits>-?(?=[A-Fa-f]{0,9}[0-9])[0-9A-Fa-f]{1,200})(?(open)\))"
    r"(?:_\{\(?(?:base)?|\(?(?:in)?base)(?P<base>[0-9]{1,2}|[a-z]{3,9})(?:\)?\}|\))?"
)


def split_unit(form: str) -> Quantity:
    r"""Split a normal form into value and unit.

    A unit must follow a value, and a variable is not a unit: `5m` is five times m.

    Example:
        >>> split_unit("864inch^{2}"), split_unit("52_{8}")
        (Quantity(value='864', unit='inch^{2}'), Quantity(value='52', unit='base 8'))
        >>> split_unit("5m"), split_unit(r"\$5"), split_unit("5ways")
        (Quantity(value='5m', unit=''), Quantity(value='5', unit='dollar'), Quantity(value='5', unit='way'))
    """
    members = form.split(", ") if ", " in form and _MEMBERS.fullmatch(form) else []
    if len(members) > 1:
        values, units = zip(*map(split_unit, members), strict=True)
        if len(set(units)) == 1:
            return Quantity(", ".join(values), units[0])
        are_counts = all(units) and not any(unit in NAMES for unit in units)
        return Quantity(", ".join(values), " and ".join(units)) if are_counts else Quantity(form, "")
    based = _BASED.fullmatch(form)
    if based:
        return Quantity(based["digits"].upper(), f"base {NUMBER_WORDS.get(based['base'], based['base'])}")
    ordinal = _ORDINAL.fullmatch(form)
    if ordinal and ordinal["suffix"] in (None, "th", _SUFFIXES.get((ordinal["value"] or "x")[-1])):
        return Quantity(ordinal["value"] or str(ORDINALS.index(ordinal["word"]) + 1), ordinal["noun"] or "ordinal")
    if (named := _NUMBERED.fullmatch(form) or _TIME.fullmatch(form)) is not None:
        return Quantity(named["value"], named["unit"])
    priced = _PRICED.fullmatch(form)
    if priced:
        unit = _SIGNS.get(priced["sign"])
        return Quantity(priced["minus"] + priced["value"], unit) if unit else Quantity(form, "")
    suffix = None if ANGLE_FUNCTION.search(form) else _SUFFIX.search(form, max(1, len(form) - MAX_UNIT_CHARACTERS))
    if suffix and form[suffix.start() - 1] in "0123456789.}) ]":
        unit = _SIGNS.get(suffix["sign"]) if suffix["sign"] else WORDS.get(suffix["unit"])
        return Quantity(form[: suffix.start()].rstrip(" "), unit or suffix[0])
    chain, sign, last = form.rpartition("=")
    counted = _COUNTED.fullmatch(last)
    if counted and not _NOT_COUNTED.fullmatch(counted["noun"]):
        return Quantity(chain + sign + counted["value"], counted["noun"].strip("()").removesuffix("s"))
    return Quantity(form, "")
