r"""Conversion of an answer to calculator notation, `\frac{1}{2}` to `1/2`, which PRM800K's grading compares."""

from __future__ import annotations

import re
from fractions import Fraction

from lm_eval_pruned.grading.normalize.braces import match_braces_in

# A number this close to a whole number is one.
WHOLE_WITHIN = 1e-7

_WORDS = (
    *(("\\%", "%"), ("\\$", "$"), ("$", ""), ("%", ""), (" or ", " , "), (" and ", " , ")),
    *(("million", "*10^6"), ("billion", "*10^9"), ("trillion", "*10^12")),
)
_UNITS = "degree cm centimeter meter mile second minute hour day week month year foot feet inch yard"
_UNIT_PATTERNS = [(unit, re.compile(rf"{unit}(?:es)?s? *(?:\^[0-9]+)?")) for unit in _UNITS.split()]
_DEGREES = re.compile(r"\^ *\\circ")
_THIN_COMMA = re.compile(r",\\! *")
_GROUP_COMMA = re.compile(r"([0-9]),([0-9]{3})($|[^0-9])")
_DECIMAL = re.compile(r"[+-]?(?=\.?[0-9])[0-9]{0,1000}\.?[0-9]{0,1000}(?:[eE][+-]?[0-9]{1,3})?")
_MINUS = re.compile(r"- *")
_MIXED = re.compile(r"([0-9]) +([0-9])")

_TEXT = re.compile(r"\\text\{(.+)\}")
_NO_BRACES = str.maketrans("", "", "{}")
_COMMAND = re.compile(r"\\([A-Za-z]+|.)", re.DOTALL)
_TAKES_ARGUMENT = re.compile(r"\\(frac|sqrt)(?![A-Za-z]) *(?:\[[^][]{0,10}\] *)?")
_DROPPED = "frac left right text textbf textrm textit mathrm mathbf mbox quad"
_TYPED = dict.fromkeys(_DROPPED.split(), "") | {"cdot": "*", "times": "*", "infty": "inf", "cup": "U"}


def type_answer(answer: str) -> str:
    r"""Return an answer as typed text, without units, blanks and braces and in lower case.

    Example:
        >>> type_answer(r"3\frac{1}{2} \text{ miles}"), type_answer(r"\text{Evelyn}"), type_answer(r"\$1,234.00")
        ('3+1/2', 'evelyn', '1234')
    """
    text = _strip_units(unwrap_text(answer))
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    text = _THIN_COMMA.sub("", text)
    if "\\" in text:
        text = _type_latex(text)
    text = _MIXED.sub(r"\1+\2", _MINUS.sub("-", text))
    text = text.replace(" ", "").translate(_NO_BRACES).lower()
    whole = read_whole(text)
    return text if whole is None else str(whole)


def read_whole(text: str) -> int | None:
    """Read a number whose value is whole, with or without commas as thousands separators.

    Example:
        >>> read_whole("1,234.0"), read_whole("1,2"), read_whole("4/2")
        (1234, None, None)
    """
    digits = strip_group_commas(text)
    if not _DECIMAL.fullmatch(digits):
        return None
    value = Fraction(digits)
    return round(value) if abs(value - round(value)) <= WHOLE_WITHIN else None


def strip_group_commas(text: str) -> str:
    """Remove commas that separate thousands.

    As in the original, a match includes the character after its group, so that the next comma waits for another pass.

    Example:
        >>> strip_group_commas("(1,234,567, 1,23)"), strip_group_commas("1,234,567,890")
        ('(1234567, 1,23)', '1234,567890')
    """
    while (shorter := _GROUP_COMMA.sub(r"\1\2\3", text)) != text:
        text = shorter
    return text


def unwrap_text(answer: str) -> str:
    r"""Remove a `\text{...}` that contains a whole answer of one line."""
    wrapped = _TEXT.fullmatch(answer)
    return wrapped[1] if wrapped else answer


def _strip_units(text: str) -> str:
    for before, after in _WORDS:
        text = text.replace(before, after)
    for unit, pattern in _UNIT_PATTERNS:
        if unit in text:
            text = pattern.sub("", text)
    return _DEGREES.sub("", text)


def _type_latex(text: str) -> str:
    """Write `/` after the first argument of a fraction and parentheses around that of a root; name other commands."""
    text = text.replace("\\tfrac", "\\frac").replace("\\dfrac", "\\frac").replace("\\frac", " \\frac")
    partners = match_braces_in(text)
    signs: list[tuple[int, str]] = []
    for command in _TAKES_ARGUMENT.finditer(text):
        end = _argument_end(text, command.end(), partners)
        signs += [(end, "/")] if command[1] == "frac" else [(command.end(), "("), (end, ")")]
    pieces, done = [], 0
    for position, sign in sorted(signs, key=lambda pair: pair[0]):
        pieces += [text[done:position], sign]
        done = position
    written = _COMMAND.sub(
        lambda command: _TYPED.get(command[1], command[1] if command[1].isalpha() else " "),
        "".join(pieces) + text[done:],
    )
    return written.translate(_NO_BRACES).strip()


def _argument_end(text: str, start: int, partners: dict[int, int]) -> int:
    if start in partners:
        return partners[start] + 1
    command = _COMMAND.match(text, start)
    return command.end() if command else min(start + 1, len(text))
