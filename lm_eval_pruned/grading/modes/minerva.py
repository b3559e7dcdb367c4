"""Grading as for Minerva: the sentence that its prompt asks for, then a string without units, decoration and shorthand.

Reference: Lewkowycz et al., Solving Quantitative Reasoning Problems with Language Models, arXiv 2206.14858, appendix D.
"""

from __future__ import annotations

import re

from lm_eval_pruned.grading.equal import EMPTY, Equality
from lm_eval_pruned.grading.modes.hendrycks import DIFFERENT, SAME

OPENING = "Final Answer: The final answer is"
CLOSING = " I hope it is correct"

# Both in the order of the paper: an early replacement changes what a later one matches.
_SUBSTITUTIONS = (
    *(("an ", ""), ("a ", ""), (".$", "$"), ("\\$", ""), ("\\ ", ""), (" ", ""), ("mbox", "text")),
    *((",\\text{and}", ","), ("\\text{and}", ","), ("\\text{m}", "\\text{}")),
)
_REMOVED = (
    *("square", "ways", "integers", "dollars", "mph", "inches", "ft", "hours", "km", "units", "\\ldots", "sue"),
    *("points", "feet", "minutes", "digits", "cents", "degrees", "cm", "gm", "pounds", "meters", "meals", "edges"),
    *("students", "childrentickets", "multiples", "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2"),
    *("\\text{}^3", "\\text{\n}", "\\text{}", "\\mathrm{th}", "^\\circ", "^{\\circ}", "\\;", ",\\!", "{,}", '"'),
    "\\dots",
)
# The formula of each line without the text around it, the contents of fonts and boxes, and shorthand.
_REWRITES = [
    (re.compile(pattern, re.MULTILINE), replacement)
    for pattern, replacement in (
        (r"^[^$\n]*(\$[^$\n]*\$).*", r"\1"),
        (r"\\text\{([^}\n]*)\}", r"\1"),
        (r"\\textbf\{([^}\n]*)\}", r"\1"),
        (r"\\overline\{([^}\n]*)\}", r"\1"),
        (r"\\boxed\{(.*)\}", r"\1"),
        (r"(frac)([^{])(.)", r"\1{\2}{\3}"),
        (r"(sqrt)([^{])", r"\1{\2}"),
    )
]


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
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = text.replace("$", "")
    digits = text.replace(",", "")
    return digits if digits.isdigit() else text
