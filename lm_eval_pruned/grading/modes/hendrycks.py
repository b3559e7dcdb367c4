"""Grading as in the MATH data set, by the harness's copy of its rules: the last box, normalised, and string equality.

Reference: Hendrycks et al., Measuring Mathematical Problem Solving With the MATH Dataset, arXiv 2103.03874.
"""

from __future__ import annotations

import re
from importlib import import_module

from lm_eval_pruned.grading.equal import Equality

SAME, DIFFERENT = "same string after normalisation", "different strings after normalisation"

# Imported when it is needed: the harness takes seconds.
_RULES = "lm_eval.tasks.hendrycks_math.utils"
_BOX = re.compile(r"\\boxed (?P<bare>.*)|\\(?:boxed|fbox)\{(?P<braced>.*)\}", re.DOTALL)


def extract(response: str) -> str | None:
    r"""Return what the last `\boxed` or `\fbox` contains, or None if that one never closes.

    `\boxed 7`, with a blank, takes precedence over all other boxes and ends at the next dollar sign.

    Differs: the content of an `\fbox` counts, on which the original fails.

    Example:
        >>> extract(r"\boxed{1}, no: \boxed{\frac{1}{2}}."), extract(r"$\boxed 7$"), extract(r"\boxed{1} \boxed{2")
        ('\\frac{1}{2}', '7', None)
    """
    box = _BOX.fullmatch(import_module(_RULES).last_boxed_only_string(response) or "")
    return box and (box["bare"] if box["braced"] is None else box["braced"])


def equal(gold: str, answer: str) -> Equality:
    r"""Compare normal forms or, if the rules fail for either side, the two texts unchanged.

    Differs: the harness's copy fails on `x/2`, which the original leaves unchanged.

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
        (None, '\\frac{1}{2}', None)
    """
    try:
        return str(import_module(_RULES).strip_string(answer))
    except (AssertionError, IndexError, ValueError):
        return None
