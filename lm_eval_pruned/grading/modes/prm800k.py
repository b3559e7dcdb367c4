r"""Grading as for PRM800K: equal under the rules of MATH, as typed text, or as tuples with equal numbers as members.

Reference: Lightman et al., Let's Verify Step by Step, arXiv 2305.20050, and the grading code of its data set.
"""

from __future__ import annotations

import re

from lm_eval_pruned.grading.compare.evaluate import evaluate_exactly
from lm_eval_pruned.grading.equal import EMPTY, Equality
from lm_eval_pruned.grading.modes import hendrycks
from lm_eval_pruned.grading.modes.typed import read_whole, strip_group_commas, type_answer, unwrap_text
from lm_eval_pruned.grading.read.parser import read

HEADING = "# Answer"

_BRACKETS = "()[]"
_RATIO = re.compile(r"-?[0-9]+.?/0*[1-9][0-9]*.?")


def extract(response: str) -> str | None:
    r"""Return the text under the last heading "# Answer", which ends PRM800K's solutions, else the last box.

    Example:
        >>> extract("So it is 5.\n# Answer\n\n5"), extract(r"So it is \boxed{5}.")
        ('5', '5')
    """
    _, found, rest = response.rpartition(HEADING)
    return rest.strip() if found else hendrycks.extract(response)


def equal(gold: str, answer: str) -> Equality:
    r"""Compare as MATH does, then as typed text, then member by member as exact numbers.

    Two fractions must be written in the same way, and a whole number equals only a whole number.

    Differs: the original asks sympy whether the difference of two members simplifies to zero, which finds equal
    expressions, too; here only rational numbers are compared, and exactly, where the original rounds them to floats.
    LaTeX is converted to typed text by a few rules of our own instead of the table of pylatexenc.

    Example:
        >>> equal("(1, 0.5)", r"(1, \frac{1}{2})").reason, equal("1/2", "2/4").reason
        ('same numbers', 'different members')
        >>> equal("1", "2/2").correct, equal(r"\sqrt{8}", r"2\sqrt{2}").correct
        (False, False)
    """
    if _math_form(gold) == _math_form(answer):
        return Equality(True, hendrycks.SAME)
    left, right = type_answer(gold), type_answer(answer)
    if left == right:
        return Equality(True, "same typed text")
    if not left or not right:
        return Equality(False, EMPTY)
    members, others = _split_members(left), _split_members(right)
    brackets = len(members) == 1 or (left[0], left[-1]) == (right[0], right[-1])
    same = brackets and len(members) == len(others) and all(map(_are_same_number, members, others))
    return Equality(same, "same numbers" if same else "different members")


def _math_form(answer: str) -> str:
    text = unwrap_text(answer.strip()).strip()
    form = hendrycks.normal_form(text)
    return text if form is None else form


def _split_members(text: str) -> list[str]:
    text = strip_group_commas(text)
    inner = text[1:-1]
    wrapped = inner and text[0] in _BRACKETS and text[-1] in _BRACKETS
    if not wrapped or any(bracket in inner for bracket in _BRACKETS):
        return [text]
    return [member.strip() for member in inner.split(",")]


def _are_same_number(gold: str, answer: str) -> bool:
    if _RATIO.fullmatch(gold) and _RATIO.fullmatch(answer):
        return gold == answer
    if (read_whole(gold) is None) != (read_whole(answer) is None):
        return False
    trees = read(gold), read(answer)
    values = [tree and evaluate_exactly(tree) for tree in trees]
    return values[0] is not None and values[0] == values[1]
