"""Equality of two values: exactly, as a rounded decimal, or numerically at fixed points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction

from lm_eval_pruned.grading.compare.evaluate import (
    DIGITS,
    POINTS,
    UndefinedError,
    evaluate_exactly,
    evaluate_numerically,
    free_names,
    is_close,
)
from lm_eval_pruned.grading.read.decimal import Number, rounds_to
from lm_eval_pruned.grading.read.tree import INFINITY, MINUS_INFINITY, Node, name, replace_names

ENOUGH_POINTS = 3

# Constants of integration, which may be written in either case.
_CONSTANTS = ("C", "K")
_INFINITIES = (INFINITY, MINUS_INFINITY)


def compare_values(one: Node, other: Node) -> bool | None:
    """Return whether two expressions have the same value, or None if they cannot be evaluated at enough points."""
    left, right = exact_number(one), exact_number(other)
    if left and right:
        return left.value == right.value or rounds_to(left, right) or rounds_to(right, left)
    if one in _INFINITIES or other in _INFINITIES:
        return one == other
    return _rounds_numerically(one, other) or agree_at_points(one, _rename_constant(one, other), is_close)


def exact_number(node: Node) -> Number | None:
    """Return the value of an expression that is a rational number, with the precision of a decimal, or None."""
    value = evaluate_exactly(node)
    return None if value is None else Number(value, node.step, node.significant)


def _rename_constant(one: Node, other: Node) -> Node:
    """Spell the constant of integration of `other` as in `one`, if that is the only difference of their names."""
    names, others = free_names(one), free_names(other)
    mine, theirs = sorted(names - others), sorted(others - names)
    if len(names) < 2 or [label.upper() for label in mine] != [label.upper() for label in theirs]:
        return other
    are_constants = {label[0].upper() for label in mine} <= {*_CONSTANTS} and all(
        map(_is_added_or_decays, [one] * len(mine) + [other] * len(mine), mine + theirs)
    )
    return replace_names(other, dict(zip(theirs, map(name, mine), strict=True))) if are_constants else other


def _is_added_or_decays(node: Node, label: str) -> bool:
    """Return whether a name is a term of a sum, or a factor next to a power of e."""
    if node.head == "*" and name(label) in node.parts:
        return any(part.head == "^" and part.parts[0] == name("e") for part in node.parts)
    return node.head == "+" and any(part == name(label) or _is_added_or_decays(part, label) for part in node.parts)


def _rounds_numerically(one: Node, other: Node) -> bool:
    decimal, value = (one, other) if one.head == "number" else (other, one)
    tolerance = Number(decimal.value, decimal.step, decimal.significant).tolerance
    if tolerance is None or free_names(value):
        return False
    try:
        unrounded = evaluate_numerically(value, {})
    except UndefinedError:
        return False
    return bool(abs(unrounded - evaluate_numerically(decimal, {})) <= float(tolerance))


def agree_at_points(one: Node, other: Node, test: Callable[..., bool]) -> bool | None:
    """Test two expressions with `test` at several points; return None if too few points can be evaluated.

    One point at which the test fails decides. At the first point, it must also pass with twice the digits. Points where
    neither value is real, as of the logarithm of a negative number, count only if there are not enough others.
    """
    verdict = _agree_at_points(one, other, test, may_be_complex=False)
    return _agree_at_points(one, other, test, may_be_complex=True) if verdict is None else verdict


def _agree_at_points(one: Node, other: Node, test: Callable[..., bool], *, may_be_complex: bool) -> bool | None:
    passed = 0
    for point in _points(one, other):
        try:
            for digits in (DIGITS,) if passed else (DIGITS, 2 * DIGITS):
                mine, theirs = (evaluate_numerically(node, point, digits=digits) for node in (one, other))
                if mine.imag and theirs.imag and not may_be_complex:
                    raise UndefinedError("not real")
                if not test(mine, theirs, digits=digits):
                    return False
        except UndefinedError:
            continue
        passed += 1
        if passed == ENOUGH_POINTS or not point:
            return True
    return None


def _points(one: Node, other: Node) -> Iterator[Mapping[str, Fraction]]:
    """Yield points with mixed signs, or positive ones for radicals and logarithms, which are to be real."""
    variables = sorted(free_names(one) | free_names(other))
    has_signs = not (_has_radical(one) or _has_radical(other))
    for shift in range(len(POINTS)):
        yield {
            variable: (-1 if has_signs and (shift + index) % 2 else 1)
            * (POINTS[(shift + 3 * index) % len(POINTS)] + index)
            for index, variable in enumerate(variables)
        }


def _has_radical(node: Node) -> bool:
    """Return whether an expression has a root, a logarithm or a power with an unknown exponent."""
    is_root = node.head == "^" and (evaluate_exactly(node.parts[1]) or Fraction(1, 2)).denominator != 1
    return is_root or (node.head == "call" and node.label in ("ln", "log", "lg")) or any(map(_has_radical, node.parts))
