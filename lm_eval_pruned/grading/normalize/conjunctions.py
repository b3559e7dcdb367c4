"""Words that join answers: "and" and "or" part members of a list, but between inequalities they are logic."""

from __future__ import annotations

import re

# One blank at most at a time: of a run of them, adjacent repetitions would try every split.
_BLANKS = re.compile(r"\s+")
_JOINT = re.compile(r" ?,? ?\\(?:text|mbox|textrm|mathrm)\{ ?,? ?(and|or) ?\} ?| ?,? (and|or) ", re.IGNORECASE)
_INEQUALITY = re.compile(r"[<>\u2260\u2264\u2265\u2208]|\\(?:[lg](?:t|eq?|eqslant)|neq?|in|notin)(?![A-Za-z])")
_LOGIC = {"and": " \\land ", "or": " \\lor "}


def plain_joints(text: str) -> str:
    r"""Write "and" and "or" as commas, but as logic where an inequality stands on both sides.

    Example:
        >>> plain_joints("x=2 or x=3"), plain_joints(r"0<x \text{ and } x\le 4")
        ('x=2, x=3', '0<x \\land x\\le 4')
    """
    folded = text.casefold()
    if "and" not in folded and "or" not in folded:
        return text
    pieces = _JOINT.split(_BLANKS.sub(" ", text))
    if len(pieces) == 1:
        return text
    segments = pieces[::3]
    are_inequalities = [_INEQUALITY.search(segment) is not None for segment in segments]
    joined = segments[0]
    for place, segment in enumerate(segments[1:]):
        word = pieces[3 * place + 1] or pieces[3 * place + 2]
        is_logic = are_inequalities[place] and are_inequalities[place + 1]
        joined += (_LOGIC[word.casefold()] if is_logic else ", ") + segment
    return joined
