r"""Rewrite units to one spelling: `\text{ m/s}^2`, `\frac{\text{m}}{\text{s}^2}` and "m s^-2" become words.

A letter in a text font after a value is a unit if it names one, and otherwise a variable.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from lm_eval_pruned.grading.normalize.unit_table import LETTERS, PLAIN, SYMBOLS, WORDS

_FONT = r"\\(?:text|textrm|textnormal|mathrm|mbox|hbox|operatorname|rm)(?![A-Za-z])"
_POWER = r"\^\s?\{?-?[0-9]\}?"
_GROUP = rf"{_FONT}\s?\{{(?:[^{{}}]|\{{[^{{}}]{{1,4}}\}}){{1,40}}\}}"
_PIECE = (
    rf"{_GROUP}|{_POWER}|\\frac\{{{_GROUP}(?:{_POWER})?\}}\{{{_GROUP}(?:{_POWER})?\}}"
    r"|\s|~|\\[,;:! ]|/|\\cdot(?![A-Za-z])|\*|[A-Za-z]{1,24}\.?"
)
# A run of pieces after a value. Letters count as a value only if a font separates the unit from them.
_RUN = re.compile(
    r"(?:(?<=[0-9.)}\]])|(?<=\\pi)(?=\s)"
    rf"|(?<=[A-Za-z])(?=(?:\s|~|\\[,;:! ]){{0,3}}{_FONT}))(?=[\\~/ A-Za-z])(?:{_PIECE}){{1,16}}"
)
_DEGREES = re.compile(rf"\^\s?\{{?\\circ\s?\}}?\s?(?:{_FONT}\s?\{{\s?)?([CF])\b\s?\}}?(?![A-Za-z0-9^_])")
_TOKEN = re.compile(
    rf"(?P<font>{_FONT}\s?\{{)|(?P<frac>\\frac\{{)|(?P<power>{_POWER})|(?P<over>/|\bper\b)"
    r"|(?P<word>[A-Za-z]+)\.?|(?P<close>\}\{?)|(?P<gap>\s|~|\\[,;:! ]|\\cdot|\*)"
)
# After a number or a blank, or in a text font. A number of ohms looks like a multiple of omega.
_SIGNS = re.compile(
    r"(?<=[0-9{ \\,~])(?:\u00c5|A\u030a|\\(?:AA|r\{A\}|mathring\{A\})(?![A-Za-z]))"
    r"|(?<=[0-9{ ,~kM])\\Omega\s*(?=\}?\s*\Z)"
    r"|(?<=[0-9{ ,~])\\mu\s*(?:\\(?:text|mathrm)\s?\{)?(?=[mgsLlNJWVAFC](?:\Z|[^A-Za-z]))"
)
_AREAS = {"square": 2, "sq": 2, "cubic": 3}
_RAISED = {"squared": 2, "cubed": 3}
_SCALES = {"C": "celsius", "F": "fahrenheit"}
# What may follow a unit that is not in a text font.
_END = re.compile(r"\s*(?:\Z|[,;.$)\]}0-9]|\*(?!\*)|\\[)\],;:!]|(?:and|or)\b)")
_LAST = re.compile(r"(?:[\s.$*})\]]|\\[)\],;:!])*")
# After the "h" of "2 h 30 min".
_MINUTES = re.compile(r"\s?[0-9]{1,2}\s?min")
_DECIMAL_BEFORE = re.compile(r"[0-9]\.[0-9]{1,9}\Z")


class _Factor(NamedTuple):
    """A unit with its power, how it was spelt, and whether it stood outside a text font."""

    unit: str
    power: int
    spelling: str
    is_bare: bool


def normalize_units(text: str) -> str:
    r"""Spell units after values with their names, products and quotients in one order.

    Example:
        >>> normalize_units(r"5\text{ m/s}^2"), normalize_units(r"5\,\mathrm{m\,s^{-2}}"), normalize_units("5 Hz")
        ('5meter/second^{2}', '5meter/second^{2}', '5hertz')
        >>> normalize_units(r"5\mathrm{i}"), normalize_units("5m"), normalize_units(r"12\pi\text{ J}")
        ('5\\mathrm{i}', '5m', '12\\pi joule')
    """
    if "\\mu" in text or "\\Omega" in text or "\\AA" in text or "{A}" in text or not text.isascii():
        text = _SIGNS.sub(_spell_sign, text)
    if "\\circ" in text:
        text = _DEGREES.sub(lambda degrees: f" {_SCALES[degrees[1]]}", text)
    return _RUN.sub(_rewrite, text)


def _spell_sign(sign: re.Match[str]) -> str:
    word = "micro" if sign[0].startswith("\\mu") else "ohm" if sign[0].startswith("\\Omega") else "angstrom"
    before = sign.string[sign.start() - 1]
    return ("" if before in "{kM" else " ") + word


def _rewrite(run: re.Match[str]) -> str:
    stretch = run[0].rstrip(" ~*")
    after = run.string[run.start() + len(stretch) :][:40]
    factors = _read_factors(stretch)
    # The factor of a variable is hardly ever a decimal.
    is_decimal = _DECIMAL_BEFORE.search(run.string, max(0, run.start() - 20), run.start()) is not None
    if not factors or not _are_units(factors, stretch, after, is_decimal=is_decimal):
        return run[0]
    name = _spell_product(factors)
    before = run.string[run.start() - 1]
    return (" " if before.isalpha() else "") + name + run[0][len(stretch) :]


def _are_units(factors: list[_Factor], stretch: str, after: str, *, is_decimal: bool) -> bool:
    """Tell units from variables.

    Factors in a text font are units. Others are units only at the end of an answer, and only if they are words or if
    a blank or a quotient separates them from products of variables.
    """
    bare = [factor for factor in factors if factor.is_bare]
    if not bare:
        return True
    if not _END.match(after):
        return False
    if all(factor.spelling in PLAIN or factor.spelling.casefold() in WORDS for factor in bare):
        return True
    if len(factors) == 1 and len(bare[0].spelling) == 1 and bare[0].power == 1:
        is_last = (bare[0].spelling in LETTERS or is_decimal) and _LAST.fullmatch(after)
        return stretch[0].isspace() and bool(is_last or _MINUTES.match(after))
    # Of `sqrt(2*g*h)` and `\sqrt{2 L C}` they are factors.
    are_letters = after.startswith("}") and all(len(factor.spelling) == 1 for factor in bare)
    are_factors = are_letters or (after.startswith(")") and stretch.startswith("\\cdot"))
    return stretch[0] in " ~\\" and not are_factors


def _read_factors(stretch: str) -> list[_Factor]:
    """Read a stretch of text as units with their powers; return an empty list if any of it is something else."""
    factors: list[_Factor] = []
    sign, area, in_font, end = 1, 1, False, 0
    for token in _TOKEN.finditer(stretch):
        if token.start() != end:
            return []
        end = token.end()
        word = token["word"]
        if token["font"] or token["frac"]:
            in_font = in_font or token["font"] is not None
        elif token["close"]:
            in_font = False
            sign = -1 if token[0] == "}{" else sign
        elif token["over"]:
            sign = -1
        elif token["power"]:
            if not factors or factors[-1].power not in (1, -1):
                return []
            factors[-1] = factors[-1]._replace(power=factors[-1].power * int(token["power"].strip("^ {}")))
        elif word in _AREAS:
            area = _AREAS[word]
        elif word in _RAISED and factors:
            factors[-1] = factors[-1]._replace(power=factors[-1].power * _RAISED[word])
        elif word:
            unit = SYMBOLS.get(word) or WORDS.get(word.casefold())
            if unit in _SCALES.values() and factors and factors[-1].unit == "degree":
                factors.pop()
            if unit is None:
                return []
            factors.append(_Factor(unit, sign * area, word, not in_font))
            area = 1
    return factors if end == len(stretch) else []


def _spell_product(factors: list[_Factor]) -> str:
    powers: Counter[str] = Counter()
    for factor in factors:
        numerator, _, denominator = factor.unit.partition("/")
        powers[numerator] += factor.power
        powers[denominator] -= factor.power
    del powers[""]
    spelt = {unit: f"{unit}^{{{abs(power)}}}".removesuffix("^{1}") for unit, power in sorted(powers.items())}
    above, below = ("\\cdot ".join(spelt[unit] for unit in spelt if sign * powers[unit] > 0) for sign in (1, -1))
    if not above:
        return "".join(f"{unit}^{{{powers[unit]}}}" for unit in spelt)
    return f"{above}/{below}" if below else above
