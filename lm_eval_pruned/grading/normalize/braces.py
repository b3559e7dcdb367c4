"""Matching of LaTeX braces, in one pass and without recursion."""

from __future__ import annotations

import re
from collections.abc import Iterable

_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def match_braces(tokens: Iterable[tuple[int, str]]) -> dict[int, int]:
    """Map the position of each opening brace to that of its closing one, among tokens with their positions.

    Braces without a partner are left out.

    Example:
        >>> match_braces(enumerate("}{a{b}"))
        {3: 5}
    """
    partners: dict[int, int] = {}
    opened: list[int] = []
    for position, token in tokens:
        if token == "{":
            opened.append(position)
        elif token == "}" and opened:
            partners[opened.pop()] = position
    return partners


def match_braces_in(text: str) -> dict[int, int]:
    r"""Do what `match_braces` does for a text, in which the escaped braces `\{` and `\}` do not count.

    Example:
        >>> match_braces_in(r"{a{b}\{")
        {2: 4}
    """
    return match_braces((brace.start(), brace[0]) for brace in _BRACE.finditer(text))
