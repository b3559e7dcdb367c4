r"""Names of values in a normal form, such as `x=5` and `P(A)=0.4`, which are ignored where only one answer has them."""

from __future__ import annotations

import re

from lm_eval_pruned.grading.compare.expand import is_constant_chain
from lm_eval_pruned.grading.normalize.normalize import fold_words, normalize

NAME = re.compile(
    r"(?:[^\W\d_]{1,40}|\\[A-Za-z]{1,20})(?:_\{\\?\w+\})?(?:\^\{-1\})?(?:\([A-Za-z0-9]+(?:, [A-Za-z0-9]+)*\))?"
    # Function values, probabilities, lengths and areas, and quotients of two letters.
    r"|(?:[fghFGPE]|\\Pr|\\mathbb\{[EP]\})'{0,3}(?:\([^=()]{1,40}(?:\([^=()]{1,40}\))?\)|\[[^=\[\]]{1,40}\])"
    r"|[A-Za-z]\((?:[A-Z](?:\\c[au]p ?[A-Z])*|[a-z]{3,40})\)|[k-s](?:\+[k-s]){1,3}|[a-w](?:\+[a-w]){2,5}"
    r"|[A-Z]{2}\^\{2\}|\[[A-Z]{3,6}\]|\|[A-Z]{2}\||\\(?:det|Delta) ?[A-Za-z](?:_\{\w+\})?"
    r"|\\(?:sin|cos|tan|cot|sec|csc)(?: ?[A-Za-z]| ?\\[a-z]{2,8}|\((?:[A-Za-z]|\\[a-z]{2,8})\))"
    r"|\\frac\{d?[A-Za-z]\}\{d?[A-Za-z]\}|d?[a-z]/d?[a-z]|m?\\angle ?[A-Za-z]+"
    r"|\\(?:vec|overrightarrow|overline|d?dot)\{[A-Za-z]+\}"
)
_ASSIGNMENT = re.compile(
    rf"(?P<name>{NAME.pattern})(?P<relation>=|\\in(?![A-Za-z])|\\equiv(?![A-Za-z])|(?<=[a-z]{{4}}):)(?P<value>.+)",
    re.DOTALL,
)
_ONE_ARGUMENT = re.compile(r"([A-Za-z])\(([a-z])\)")
_LETTER = re.compile(r"\\[A-Za-z]+|[A-Za-z]")
RELATION = re.compile(r"[=<>]|\\(?:le|ge|ne|in|approx|equiv)(?![A-Za-z])")


def strip_names(left: str, right: str) -> tuple[str, str]:
    """Remove the name from `x=5` if the other side has the same name or none.

    Example:
        >>> strip_names("x=5", "5"), strip_names("x=5", "y=5"), strip_names("f(x)=2x", "f(n)=2n")
        (('5', '5'), ('x=5', 'y=5'), ('2x', '2x'))
    """
    if ", " in left and ", " in right:
        left, right = _strip_listed_names(left, right) or _strip_listed_names(right, left) or (left, right)
    one, other = _match_assignment(left), _match_assignment(right)
    if one and other and (bound := _rename_argument(one, other)):
        return bound
    if one and other:
        names = [fold_words(match["name"] + match["relation"]) for match in (one, other)]
        values = [one["value"], other["value"]]
        # After a name, different case means different variables: P=IV, P=iv.
        are_variables = values[0] != values[1] and values[0].isalpha()
        if names[0] != names[1] or (are_variables and fold_words(values[0]) == fold_words(values[1])):
            return left, right
    if (one and not other and RELATION.search(right)) or (other and not one and RELATION.search(left)):
        return left, right
    return normalize(one["value"]) if one else left, normalize(other["value"]) if other else right


def _rename_argument(one: re.Match[str], other: re.Match[str]) -> tuple[str, str] | None:
    """Return the values of `f(x)=2x` and `f(n)=2n` in one variable, None unless a function has two arguments."""
    mine, theirs = (_ONE_ARGUMENT.fullmatch(match["name"]) for match in (one, other))
    if not mine or not theirs or mine[1] != theirs[1] or mine[2] in other["value"] or theirs[2] in one["value"]:
        return None
    if mine[2] not in one["value"] or theirs[2] not in other["value"]:
        # P(a)=0.4 and P(b)=0.4 are no formulas of the argument.
        return None
    names = {theirs[2]: mine[2]}
    return one["value"], _LETTER.sub(lambda letter: names.get(letter[0], letter[0]), other["value"])


def _strip_listed_names(form: str, other: str) -> tuple[str, str] | None:
    """Return a list such as `T(1)=2, T(2)=4` without its names and a list that has none, both as tuples."""
    members = form.split(", ")
    if other.count(", ") != len(members) - 1 or RELATION.search(other) or ":" in other:
        return None
    # Numbered values may be in any order.
    matches = [match for match in map(_match_assignment, members) if match and "_" not in match["name"]]
    named = [match["value"] for match in matches if len(match["name"]) > 2]
    return (f"({', '.join(named)})", f"({other})") if len(named) == len(members) else None


def _match_assignment(form: str) -> re.Match[str] | None:
    """Match a name and its value, which may be a chain of values; return None if it contains another relation."""
    match = _ASSIGNMENT.fullmatch(form)
    if match is None or RELATION.search(match["value"].replace("=", "")):
        return None
    if len(match["name"]) == 1 and match["name"] in re.findall(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])", match["value"]):
        # An equation that has yet to be solved, x=3x.
        return None
    return match if "=" not in match["value"] or is_constant_chain(match["value"]) else None
