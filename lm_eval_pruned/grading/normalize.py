"""The normal form: two answers that differ only in how they are typed become the same string."""

from __future__ import annotations

import re

from lm_eval_pruned.grading.characters import plain_characters
from lm_eval_pruned.grading.latex import plain_latex

# Dropping one thing can bring two others together (a letter and its accent, say); a few rounds settle every answer.
MAX_ROUNDS = 8

_WRAPPING = '*`" \t\n'
_ENDING = _WRAPPING + ".,;"

_WORD = re.compile(r"\\[A-Za-z]+|[^\W\d_]{2,}")
_BRACKET_OR_RUN = re.compile(r"(?P<open>\(|\[|\\\{)|(?P<close>\)|\]|\\\})|(?P<run>[0-9][0-9., ]*/?)")
_GROUPED = re.compile(r"[1-9][0-9]{0,2}(?:(?:,[0-9]{3})+|(?: [0-9]{3})+)(?:\.[0-9]+)?")
_TIGHT_COMMA = re.compile(r",(?=[^ ])")


def normalize(answer: str) -> str:
    r"""Return the normal form of an answer; normal forms stay as they are.

    Brackets, units, bases and the contents of `\text{...}` remain. Words of two or more letters are lower-cased; a
    single letter is a variable and keeps its case. Blanks are dropped except between the two parts of `1 2/3`.

    Example:
        >>> normalize(r"$\left[ 0, \dfrac12 \right)$.")
        '[0, \\frac{1}{2})'
        >>> normalize(r"\text{Evelyn}"), normalize("1{,}234,567"), normalize("(x+1)")
        ('evelyn', '1234567', 'x+1')
    """
    if answer.isascii() and answer.isdigit():
        return answer
    for _ in range(MAX_ROUNDS):
        form = _round(answer)
        if form == answer:
            break
        answer = form
    return answer


def _round(answer: str) -> str:
    text = plain_latex(_without_decoration(plain_characters(answer))).rstrip(_ENDING)
    text = _TIGHT_COMMA.sub(", ", _join_thousands(text))
    text = _WORD.sub(lambda word: word[0] if word[0].startswith("\\") else word[0].casefold(), text)
    return _without_outer_parentheses(text)


def _without_decoration(text: str) -> str:
    text = text.strip(_WRAPPING)
    return text[:-1].strip(_WRAPPING) if text[-2:] in ("*.", "`.", '".') else text


def _join_thousands(text: str) -> str:
    """Join `1,234,567` and `1 234 567`, but not inside brackets, where the comma parts two members."""
    pieces, depth, done = [], 0, 0
    for match in _BRACKET_OR_RUN.finditer(text):
        if match["run"] is None:
            depth += 1 if match["open"] else -1
        elif depth <= 0:
            members = match["run"].split(", ")
            joined = [re.sub("[ ,]", "", member) if _GROUPED.fullmatch(member) else member for member in members]
            pieces += [text[done : match.start()], ", ".join(joined)]
            done = match.end()
    return "".join(pieces) + text[done:]


def _without_outer_parentheses(text: str) -> str:
    """Unwrap `(x+1)` and `(C)`; a comma inside makes the parentheses a tuple or an interval."""
    most = min(len(text) - len(text.lstrip("(")), len(text) - len(text.rstrip(")")))
    if not most or "," in text:
        return text
    depth = lowest = most
    for sign in text[most:-most]:
        depth += (sign == "(") - (sign == ")")
        lowest = min(lowest, depth)
    layers = min(most, lowest)
    return text[layers:-layers] if layers > 0 and depth == most else text
