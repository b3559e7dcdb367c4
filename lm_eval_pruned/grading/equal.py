"""Comparison of two answers: labels, names and units first, then numbers, then parsed meanings, then sympy.

The first step that can decide does: equal normal forms; a choice label or a name on one side only; units; exact numbers
and rounded decimals; expression trees; and sympy in a worker process, for what our parser does not read or compare.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from lm_eval_pruned.grading.answer_kinds import Status
from lm_eval_pruned.grading.compare.compare import compare_answers
from lm_eval_pruned.grading.compare.expand import is_constant_chain
from lm_eval_pruned.grading.compare.values import exact_number
from lm_eval_pruned.grading.limits import MAX_ANSWER_CHARACTERS
from lm_eval_pruned.grading.names import NAME, RELATION, strip_names
from lm_eval_pruned.grading.normalize.normalize import fold_words, normalize
from lm_eval_pruned.grading.normalize.remarks import normalize_conjunctions, strip_remarks
from lm_eval_pruned.grading.normalize.unit_table import SYMBOLS
from lm_eval_pruned.grading.normalize.units import ANGLE_FUNCTION, Quantity, split_unit
from lm_eval_pruned.grading.read.decimal import Number, rounds_to
from lm_eval_pruned.grading.read.parser import read
from lm_eval_pruned.grading.symbolic.worker import ask
from lm_eval_pruned.grading.vocabulary import CONSTANTS

TOO_LONG = f"longer than {MAX_ANSWER_CHARACTERS} characters"
EMPTY = "empty"
UNDECIDED = "different normal forms"

_BARE_LOG = re.compile(r"log(?!_)")
_CHOICE_LETTERS = tuple("abcde")
_LABELLED_CHOICE = re.compile(
    r"\((?P<letter>[A-E])\)(?P<value>(?:[A-Za-z0-9.-]|\\(?!c[aud])).*)"
    # What counts as a label only if the other side is a letter.
    r"|(?:option|choice)\(?(?P<option>[A-Ea-e])\)?(?:[:.].*)?|(?P<lone>[A-Ea-e])(?:[).:].*|\([a-z]{3}.*)",
    re.DOTALL,
)
# "Yes, since x > 0" for "Yes", and "No such number exists" for "No".
_DECISION = re.compile(
    r"(?P<word>yes|no|true|false)(?!.*(?:[^a-z](?:yes|no|true|false)\Z|onlyif|unless|except))(?:[,.;:]|such).*",
    re.DOTALL,
)
_DECISIONS = ("yes", "no", "true", "false")
# Not those of an index, as in a sum from k=1.
_CHAIN_SIGN = re.compile(r"=(?![^{}]{0,40}\})")
_SYMBOL = re.compile(r"(?P<value>.*[0-9])(?P<symbol>[A-Za-z]{1,3})", re.DOTALL)
_DEGREE = "^{\\circ}"
_DECIMAL = re.compile(r" ?-?[0-9]*\.[0-9]")

# Notation that our own parser does not read and sympy does.
_SYMPY_COMMANDS = re.compile(r"\\(?:int|iint|oint|sum|prod|lim|det)(?![A-Za-z])|\\frac\{d\}\{d[a-z]\}")
# Text, bases, ellipses and members of a set by a condition: no second opinion on those.
_NOT_MATHEMATICS = re.compile(
    r"(?<![\\A-Za-z{])[A-Za-z]{4,}|\\(?:ldots|text|mathbb|mid|cup|cap|setminus|emptyset)(?![A-Za-z])"
    r"|[0-9]\}?_|[0-9] [0-9]|[^\x20-\x7e]"
    r"|\A[^0-9\\]*\Z|(?:\A| )[A-Za-z]{2,3}(?:\Z| )"
)
_LEADING_SIGNS = re.compile(r"\A(?:=|\\(?:Rightarrow|implies|Longrightarrow)(?![A-Za-z]) ?)+")
_AM_OR_PM = re.compile(r"\b([AaPp])\.\s?([Mm])\b\.?")


class Equality(NamedTuple):
    """Whether two answers are equal, with the reason. Its truth value is that of `correct`."""

    correct: bool
    reason: str
    status: Status = "ok"

    def __bool__(self) -> bool:
        return self.correct


def equal(gold: str, answer: str) -> Equality:
    r"""Compare two answers; the order of the two never matters.

    A name on one side only (`x = 5` and `5`) and a unit on one side only (`40\%` and `40`) are ignored; two different
    names or units are not. A decimal equals a fraction if it is the fraction rounded to the digits shown, of which
    there must be at least four.

    Example:
        >>> equal("025", "25.0").reason
        'same number'
        >>> equal("(3,4]", "[3,4]").correct, equal(r"\frac{1}{3}", "0.3333").reason
        (False, 'rounded decimal')
    """
    return equal_forms(normal_form(gold), normal_form(answer))


def normal_form(answer: str) -> str:
    r"""Return the form of an answer that is compared; an answer beyond the limit is returned unchanged.

    Example:
        >>> normal_form(r"x = \tfrac12 \text{ or } x = 2.")
        'x=\\frac{1}{2}, x=2'
    """
    if len(answer) > MAX_ANSWER_CHARACTERS:
        return answer
    form = normalize(_strip_announcement(answer))
    if "\\approx" in form:
        form = normalize(_strip_approximation(form))
    return _LEADING_SIGNS.sub("", form, count=1) if form[:1] in ("=", "\\") else form


def equal_forms(left: str, right: str) -> Equality:
    """Compare two answers given in normal form."""
    if max(len(left), len(right)) > MAX_ANSWER_CHARACTERS:
        return Equality(left == right, TOO_LONG, "ok" if left == right else "unparsed")
    if not left or not right:
        return Equality(False, EMPTY, "unparsed")
    if left == right:
        return Equality(True, "same normal form")
    return _compare_values(*strip_names(_strip_label(left, right), _strip_label(right, left)))


def _strip_announcement(text: str) -> str:
    """Remove words that announce an answer, write lists with commas, and a.m. and p.m. as one word."""
    first, _, second = text.partition(" or ")
    if second and " or " not in second and not _SYMPY_COMMANDS.search(text) and equal(first, second):
        # "1/2 or 0.5" is one answer in two spellings, not a list.
        text = first
    return _AM_OR_PM.sub(r"\1\2", normalize_conjunctions(strip_remarks(text)))


def _strip_approximation(form: str) -> str:
    r"""Remove a decimal that only approximates an exact value; otherwise read `\approx` as `=`."""
    exact, _, decimal = form.rpartition("\\approx")
    is_exact = exact and (exact in CONSTANTS or not NAME.fullmatch(exact)) and _DECIMAL.match(decimal)
    return (exact if is_exact else form).replace("\\approx", "=").removeprefix("=")


def _strip_label(form: str, other: str) -> str:
    """Reduce a choice with its text, such as `(C)5`, to what the other side is, letter or text, but not if both are.

    A "yes" or "no" with its reason is reduced to that word if this is all of the other side.
    """
    if other in _DECISIONS and (decision := _DECISION.fullmatch(form.casefold())):
        return decision["word"]
    choice = _LABELLED_CHOICE.fullmatch(form)
    if choice is None or _LABELLED_CHOICE.fullmatch(other):
        return form
    if other in _CHOICE_LETTERS:
        return (choice["letter"] or choice["option"] or choice["lone"]).casefold()
    return normalize(choice["value"]) if choice["letter"] else form


def _compare_values(left: str, right: str) -> Equality:
    if left == right:
        return Equality(True, "same value, named on one side")
    one, other = split_unit(left), split_unit(right)
    if {one.unit, other.unit} == {"degree", ""} and "\\pi" in (one.value if other.unit else other.value):
        # Radians: our parser reads the sign of a degree as a factor.
        return _compare_parsed(*(side.value + _DEGREE * bool(side.unit) for side in (one, other)))
    one, other = _read_symbol(one, other.unit), _read_symbol(other, one.unit)
    if one.unit and other.unit and one.unit != other.unit:
        return Equality(False, f"different units: {min(one.unit, other.unit)} and {max(one.unit, other.unit)}")
    if one.value == other.value:
        return Equality(True, "same value and unit" if one.unit == other.unit else "same value, unit on one side")
    return _compare_parsed(_without_degrees(one.value, other.value), _without_degrees(other.value, one.value))


def _without_degrees(form: str, other: str) -> str:
    """Remove degrees from the terms of a sum if the other side has none, as a unit on one side only is ignored."""
    is_angle = ANGLE_FUNCTION.search(form + other) or "\\pi" in other or _DEGREE in other
    return form if is_angle else form.replace(_DEGREE, "")


def _read_symbol(quantity: Quantity, unit: str) -> Quantity:
    """Read the letters of `0.64N` as a unit if the other side has this unit; otherwise they are variables."""
    typed = None if quantity.unit or not unit else _SYMBOL.fullmatch(quantity.value)
    return Quantity(typed["value"], unit) if typed and SYMBOLS.get(typed["symbol"]) == unit else quantity


def _compare_parsed(left: str, right: str) -> Equality:
    if ("log" in left) != ("log" in right) and ("ln" in left) == ("log" in right) != ("ln" in right):
        # Compared with ln, log without a base is the natural logarithm.
        left, right = _BARE_LOG.sub("ln", left), _BARE_LOG.sub("ln", right)
    one, other = (None if _SYMPY_COMMANDS.search(form) else read(form) for form in (left, right))
    if one is None and other is not None and left.isalpha():
        # Compared with an expression, a few letters are a product; otherwise they are a word.
        one = read(f"({left})")
    elif other is None and one is not None and right.isalpha():
        other = read(f"({right})")
    if one and other and (left_number := exact_number(one)) and (right_number := exact_number(other)):
        return _compare_numbers(left_number, right_number)
    if (one is None) != (other is None) and (ends := _end_chain(left, right)) != (left, right):
        return _compare_values(*ends)
    verdict = compare_answers(one, other) if one and other else None
    if verdict:
        return Equality(True, "same meaning")
    if not (one and other) and sorted(fold_words(left).split("=")) == sorted(fold_words(right).split("=")):
        return Equality(True, "same text")
    # Matrices are added and multiplied, and inequalities such as x^4>16 solved, by sympy only.
    is_ours = not ("matrix}" in left and "matrix}" in right)
    if one and other and verdict is False and is_ours and not {one.label, other.label} <= {"<", "<="}:
        return Equality(False, "different meanings")
    return _ask_second_opinion(left, right, verdict, is_read=bool(one and other))


def _end_chain(left: str, right: str) -> tuple[str, str]:
    r"""Return two forms, of which one is a chain such as `17\bmod5=2`, without members that cannot be read."""
    ends = []
    for form, other in ((left, right), (right, left)):
        members = _CHAIN_SIGN.split(form)
        known = "=".join(member for member in members if read(member))
        is_chain = len(members) > 1 and read(members[-1]) and not RELATION.search(known.replace("=", ""))
        is_value = is_chain and not RELATION.search(other) and ("=" not in known or is_constant_chain(known))
        ends.append(known if is_value else form)
    return ends[0], ends[1]


def _ask_second_opinion(left: str, right: str, verdict: bool | None, *, is_read: bool) -> Equality:
    """Ask sympy about two answers that our parser did not read or did not compare; it can only accept them."""
    # Two texts that are not mathematics are different; two expressions that could not be compared may be equal.
    undecided = Equality(False, UNDECIDED, "unparsed" if is_read and verdict is None else "ok")
    if _shape(left) != _shape(right) or any(map(_NOT_MATHEMATICS.search, (left, right))):
        return undecided
    opinion = ask(left, right)
    if opinion.equal:
        return Equality(True, f"same value (sympy: {opinion.reason})")
    needs_sympy = _SYMPY_COMMANDS.search(left) or _SYMPY_COMMANDS.search(right)
    return Equality(False, opinion.reason, opinion.status) if needs_sympy or opinion.status == "timeout" else undecided


def _shape(form: str) -> tuple[str, int]:
    """Return what two equal answers have in common: the brackets around a form with commas, and their number."""
    commas = form.count(", ") + form.count(";")
    return (form[0] + form[-1] if commas and form[0] in "([" and form[-1] in ")]" else ""), commas


def _compare_numbers(one: Number, other: Number) -> Equality:
    if one.value == other.value:
        return Equality(True, "same number")
    is_rounded = rounds_to(one, other) or rounds_to(other, one)
    return Equality(is_rounded, "rounded decimal" if is_rounded else "different numbers")
