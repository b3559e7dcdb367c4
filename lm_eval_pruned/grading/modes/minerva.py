"""Grading as for Minerva: the sentence that its prompt asks for, then a string without units, decoration and shorthand.

Reference: Lewkowycz et al., Solving Quantitative Reasoning Problems with Language Models, arXiv 2206.14858, appendix D.

Reference: Lewkowycz et al., Solving Quantitative Reasoning Problems with Language Models, arXiv 2206.14858, appendix D.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from lm_eval_pruned.grading.equal import EMPTY, Equality
from lm_eval_pruned.grading.modes.hendrycks import DIFFERENT, SAME

OPENING = "Final Answer: The final answer is"
CLOSING = " I hope it is correct"

# Both in the order of the paper: an early replacement changes what a later one matches.
_SUBSTITUTIONS = (
    ("an ", ""),
    ("a ", ""),
    (".$", "$"),
    ("\\$", ""),
    ("\\ ", ""),
    (" ", ""),
    ("mbox", "text"),
    (",\\text{and}", ","),
    ("\\text{and}", ","),
    ("\\text{m}", "\\text{}"),
)
_REMOVED = (
    *("square", "ways", "integers", "dollars", "mph", "inches", "ft", "hours", "km", "units", "\\ldots", "sue"),
    *("points", "feet", "minutes", "digits", "cents", "degrees", "cm", "gm", "pounds", "meters", "meals", "edges"),
    *("students", "childrentickets", "multiples", "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2"),
    *("\\text{}^3", "\\text{\n}", "\\text{}", "\\mathrm{th}", "^\\circ", "^{\\circ}", "\\;", ",\\!", "{,}", '"'),
    "\\dots",
)
_UNWRAPPED = ("\\text{", "\\textbf{", "\\overline{")
_BOX = "\\boxed{"

_FRACTION = re.compile(r"(frac)([^{])(.)")
_ROOT = re.compile(r"(sqrt)([^{])")


def extract(response: str) -> str | None:
    """Return what the first line in the form of Minerva's prompt announces; the end of the text may end it, too.

    Example:
        >>> extract("Final Answer: The final answer is $24$. I hope it is correct.")
        '$24$'
        >>> extract("Final Answer: The final answer is $24$. ")
        '$24$'
    """
    for line in f"{response}{CLOSING[1:]}.".split("\n"):
        _, found, rest = line.partition(OPENING)
        # One more character, usually a full stop, is on either side of the closing words.
        end = rest.find(CLOSING, 1)
        if found and 0 < end < len(rest) - len(CLOSING):
            return rest[: end - 1].strip()
    return None


def equal(gold: str, answer: str) -> Equality:
    r"""Compare normal forms; two answers whose normal forms are empty are not equal.

    Differs: the paper also accepts what sympy simplifies to the same value; here only strings are compared.

    Example:
        >>> equal(r"\frac{1}{2}", r"x = $\frac12$ cm").correct, equal(r"\frac{1}{2}", "0.5").correct
        (True, False)
    """
    left, right = normal_form(gold), normal_form(answer)
    if not left or not right:
        return Equality(False, EMPTY)
    return Equality(left == right, SAME if left == right else DIFFERENT)


def normal_form(answer: str) -> str:
    r"""Return the string that is compared.

    Example:
        >>> normal_form("n = 1,234 dollars"), normal_form(r"a $\textbf{5}$ or so")
        ('1234', '5')
    """
    text = answer.rpartition("=")[2]
    for before, after in (*_SUBSTITUTIONS, *((expression, "") for expression in _REMOVED)):
        text = text.replace(before, after)
    text = _line_by_line(_keep_math, text)
    for opening in _UNWRAPPED:
        text = _line_by_line(partial(_unwrap, opening), text)
    text = _line_by_line(_unbox, text)
    text = _FRACTION.sub(r"\1{\2}{\3}", text)
    text = _ROOT.sub(r"\1{\2}", text).replace("$", "")
    digits = text.replace(",", "")
    return digits if digits.isdigit() else text


def _line_by_line(change: Callable[[str], str], text: str) -> str:
    """Apply a change to each line: in the paper's patterns, no match crosses a line break."""
    return "\n".join(map(change, text.split("\n")))


def _keep_math(line: str) -> str:
    parts = line.split("$", 2)
    return f"${parts[1]}$" if len(parts) == 3 else line


def _unwrap(opening: str, line: str) -> str:
    """Remove each `opening` and the nearest closing brace after it, even if that closes an inner pair."""
    pieces, done = [], 0
    while (start := line.find(opening, done)) >= 0 and (end := line.find("}", start)) >= 0:
        pieces += [line[done:start], line[start + len(opening) : end]]
        done = end + 1
    return "".join(pieces) + line[done:]


def _unbox(line: str) -> str:
    before, found, rest = line.partition(_BOX)
    inside, closed, after = rest.rpartition("}")
    return before + inside + after if found and closed else line
