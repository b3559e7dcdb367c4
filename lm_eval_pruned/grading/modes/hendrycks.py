"""Grading as in the MATH data set: the last box, a string without blanks, units and shorthand, and string equality.

Reference: Hendrycks et al., Measuring Mathematical Problem Solving With the MATH Dataset, arXiv 2103.03874.

Reference: Hendrycks et al., Measuring Mathematical Problem Solving With the MATH Dataset, arXiv 2103.03874.
"""

from __future__ import annotations

import re

from lm_eval_pruned.grading.equal import Equality
from lm_eval_pruned.grading.normalize.braces import match_braces

SAME, DIFFERENT = "same string after normalisation", "different strings after normalisation"

# Replacements, in this order, before and after a unit at the end is removed.
_BEFORE_UNITS = (
    ("\n", ""),
    ("\\!", ""),
    ("\\\\", "\\"),
    ("tfrac", "frac"),
    ("dfrac", "frac"),
    ("\\left", ""),
    ("\\right", ""),
    ("^{\\circ}", ""),
    ("^\\circ", ""),
    ("\\$", ""),
)
_AFTER_UNITS = (("\\%", ""), (" .", " 0."), ("{.", "{0."))
_UNIT = "\\text{ "

_BRACE = re.compile(r"[{}]")
_SIMPLE_RATIO = re.compile(r"(0|-?[1-9][0-9]*)/(0|-?[1-9][0-9]*)")


def last_box(response: str) -> str | None:
    r"""Return what the last `\boxed` or `\fbox` contains, or None if that one never closes.

    `\boxed 7`, with a blank, takes precedence over all other boxes and ends at the next dollar sign.

    Differs: the content of an `\fbox` counts, on which the original fails.

    Example:
        >>> last_box(r"\boxed{1}, no: \boxed{\frac{1}{2}}."), last_box(r"$\boxed 7$"), last_box(r"\boxed{1} \boxed{2")
        ('\\frac{1}{2}', '7', None)
    """
    _, blank, rest = response.rpartition("\\boxed ")
    if blank:
        return rest.partition("$")[0]
    command = "\\boxed" if "\\boxed" in response else "\\fbox"
    start = response.rfind(command) + len(command)
    if not response.startswith(command + "{", start - len(command)):
        return None
    # Escaped braces count, as in the original.
    end = match_braces((brace.start(), brace[0]) for brace in _BRACE.finditer(response, start)).get(start)
    return None if end is None else response[start + 1 : end]


def equal(gold: str, answer: str) -> Equality:
    r"""Compare normal forms or, if the rules fail for either side, the two texts unchanged.

    Differs: not from the original. The harness's copy fails on `x/2`, which the original leaves unchanged.

    Example:
        >>> equal(r"\frac{1}{2}", r"x = \dfrac12").correct, equal("0.25", r"\frac14").correct
        (True, False)
    """
    left, right = normal_form(gold), normal_form(answer)
    same = gold == answer if left is None or right is None else left == right
    return Equality(same, SAME if same else DIFFERENT)


def normal_form(answer: str) -> str | None:
    r"""Return the string that is compared, or None if the rules fail: two units, or a command without its argument.

    Example:
        >>> normal_form(r"\sqrt3/2 \text{ cm}"), normal_form("1/2"), normal_form(r"\frac")
        ('\\sqrt{3}/2', '\\frac{1}{2}', None)
    """
    text = _replace(answer, _BEFORE_UNITS)
    if text.count(_UNIT) > 1:
        return None
    text = _replace(text.partition(_UNIT)[0], _AFTER_UNITS)
    if not text:
        return text
    text = _strip_short_name("0" + text if text.startswith(".") else text)
    rooted = _brace_roots(text)
    fractions = None if rooted is None else _brace_fractions(rooted.replace(" ", ""))
    if fractions is None:
        return None
    return (
        _SIMPLE_RATIO.sub(r"\\frac{\1}{\2}", fractions)
        if _SIMPLE_RATIO.fullmatch(fractions)
        else _spell_half(fractions)
    )


def _replace(text: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for before, after in pairs:
        text = text.replace(before, after)
    return text


def _strip_short_name(text: str) -> str:
    name, _, value = text.partition("=")
    return value if text.count("=") == 1 and len(name) <= 2 else text


def _brace_roots(text: str) -> str | None:
    head, *pieces = text.split("\\sqrt")
    if not all(pieces):
        return None
    return head + "".join(
        f"\\sqrt{piece}" if piece[0] == "{" else f"\\sqrt{{{piece[0]}}}{piece[1:]}" for piece in pieces
    )


def _brace_fractions(text: str) -> str | None:
    head, *pieces = text.split("\\frac")
    done = [head]
    for piece in pieces:
        if not piece:
            return None
        if piece[0] == "{":
            done.append(piece)
        elif len(piece) == 1:
            return text
        else:
            below = piece[1:] if piece[1] == "{" else f"{{{piece[1]}}}{piece[2:]}"
            done.append(f"{{{piece[0]}}}{below}")
    return "\\frac".join(done)


def _spell_half(text: str) -> str:
    return "\\frac{1}{2}" if text == "0.5" else text
