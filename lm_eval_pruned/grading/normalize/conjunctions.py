"""Rewrite "and" and "or": as commas between members of a list, as logical operators between inequalities."""

from __future__ import annotations

import re

# The pattern takes one blank at most: repetitions of adjacent blanks would try every split of a run.
_BLANKS = re.compile(r"\s+")
_CONJUNCTION = re.compile(r" ?,? ?\\(?:text|mbox|textrm|mathrm)\{ ?,? ?(and|or) ?\} ?| ?,? (and|or) ", re.IGNORECASE)
_TIGHT = re.compile(r"(?<=[0-9)\]}$])(and|or)(?=[0-9(\[\\$-])")
_INEQUALITY = re.compile(r"[<>\u2260\u2264\u2265\u2208]|\\(?:[lg](?:t|eq?|eqslant)|neq?|in|notin)(?![A-Za-z])")
_LOGIC = {"and": " \\land ", "or": " \\lor "}


def normalize_conjunctions(text: str) -> str:
    r"""Write "and" and "or" as commas, but as `\land` and `\lor` if both sides are inequalities.

    Example:
        >>> normalize_conjunctions("x=2 or x=3"), normalize_conjunctions(r"0<x \text{ and } x\le 4")
        ('x=2, x=3', '0<x \\land x\\le 4')
    """
    folded = text.casefold()
    if "and" not in folded and "or" not in folded:
        return text
    pieces = _CONJUNCTION.split(_BLANKS.sub(" ", _TIGHT.sub(r" \1 ", text)))
    if len(pieces) == 1:
        return text
    segments = pieces[::3]
    are_inequalities = [_INEQUALITY.search(segment) is not None for segment in segments]
    joined = segments[0]
    for index, segment in enumerate(segments[1:]):
        word = pieces[3 * index + 1] or pieces[3 * index + 2]
        is_logic = are_inequalities[index] and are_inequalities[index + 1]
        joined += (_LOGIC[word.casefold()] if is_logic else ", ") + segment
    return joined
