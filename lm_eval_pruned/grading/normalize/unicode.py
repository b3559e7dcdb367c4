"""Rewrite Unicode characters with a mathematical meaning as ASCII or LaTeX."""

from __future__ import annotations

import re
import unicodedata
from itertools import groupby

# Control, format (bidirectional marks, zero-width joiners) and surrogate characters are invisible and are removed.
_INVISIBLE = ("Cc", "Cf", "Cs")

# These are rewritten before NFKC, which would turn x² into x2, 1½ into 11/2 and a ring above into a blank.
_RAISED = {"<super>": "^", "<sub>": "_"}
_DEGREES = "\u00b0\u00ba\u02da"

# A spelling and the characters that are rewritten so.
_SPELLINGS = (
    "- \u2010\u2011\u2012\u2013\u2014\u2212; \\cdot \u00b7\u00d7\u2219\u22c5; / \u2044\u2215\u00f7; ' \u2032\u2019; "
    '" \u201c\u201d\u201e\u00ab\u00bb; : \u2236; \\pm \u00b1; \\in \u2208; \\emptyset \u2205; \\infty \u221e; '
    f"\\cap \u2229; \\cup \u222a; \\approx \u2248; \\ne \u2260; \\le \u2264; \\ge \u2265; ^\\circ {_DEGREES}; "
    "\\hbar \u0127; , \u3001; \\forall \u2200"
)
_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho varsigma sigma tau "
    "upsilon phi chi psi omega"
)
_SMALL_ALPHA, _CAPITAL_ALPHA = 0x3B1, 0x391
_SYMBOLS: dict[int, str] = {
    **{
        ord(one): kept + " " * kept[-1].isalpha()
        for kept, those in map(str.split, _SPELLINGS.split(";"))
        for one in those
    },
    **{_CAPITAL_ALPHA + index: f"\\{name.capitalize()} " for index, name in enumerate(_GREEK.split())},
    **{_SMALL_ALPHA + index: f"\\{name} " for index, name in enumerate(_GREEK.split())},
}

# NFKC would make plain letters of the number sets.
_NUMBER_SETS = {
    ord(sign): f"\\mathbb{{{name}}}" for sign, name in zip("\u2102\u2115\u211a\u211d\u2124", "CNQRZ", strict=True)
}

_ROOT = re.compile(r"([√∛]) ?(?:([0-9]+|[A-Za-z])|\(([^()]*)\))")


def normalize_characters(text: str) -> str:
    r"""Rewrite `text` in ASCII and LaTeX where other characters mean the same.

    Example:
        >>> normalize_characters("1½ ≤ x²")
        '1\\frac{1}{2} \\le  x^{2}'
    """
    if text.isascii() and text.isprintable():
        return text
    pieces = []
    for tag, run in groupby(text.translate(_NUMBER_SETS), _compatibility):
        characters = "".join(run)
        if tag in _RAISED:
            inner = unicodedata.normalize("NFKC", characters)
            pieces.append(f"{_RAISED[tag]}{{{inner}}}")
        elif tag == "<fraction>":
            spelt = (unicodedata.normalize("NFKC", character).split("\u2044") for character in characters)
            pieces += [f"\\frac{{{numerator}}}{{{denominator}}}" for numerator, denominator in spelt]
        else:
            pieces.append("".join(map(_plain_character, characters)))
    plain = unicodedata.normalize("NFKC", "".join(pieces)).translate(_SYMBOLS)
    return _ROOT.sub(lambda root: f"\\sqrt{'[3]' * (root[1] == '∛')}{{{root[2] or root[3]}}}", plain)


def _compatibility(character: str) -> str:
    if character in _DEGREES:
        return ""
    tag = unicodedata.decomposition(character).partition(" ")[0]
    return tag if tag in {*_RAISED, "<fraction>"} else ""


def _plain_character(character: str) -> str:
    if character.isspace():
        return " "
    if character in _DEGREES:
        return "\u00b0"
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return "" if unicodedata.category(character) in _INVISIBLE else character
