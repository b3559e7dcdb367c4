"""Two values are the same if they agree exactly, as a rounded decimal, or at fixed points to many digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction

from lm_eval_pruned.grading.compare.evaluate import DIGITS, UndefinedError, exact, is_close, names, numeric
from lm_eval_pruned.grading.read.decimal import Number, rounds_to
from lm_eval_pruned.grading.read.tree import INFINITY, MINUS_INFINITY, Node, name

# Where expressions with names are compared; neighbours are unlike enough not to agree by chance.
_ABOVE = (7, 29, 3, 61, 11, 43, 5, 97, 13, 151)
_BELOW = (5, 13, 7, 17, 19, 23, 31, 37, 41, 59)
POINTS = tuple(map(Fraction, _ABOVE, _BELOW))
ENOUGH = 3

_CONSTANTS_OF_INTEGRATION = (name("C"), name("c"))


def same_value(one: Node, other: Node) -> bool | None:
    """Tell whether two expressions have the same value, or None where neither of them has one at enough points."""
    left, right = exact(one), exact(other)
    if left is not None and right is not None:
        exactly = Number(left, one.step, one.significant), Number(right, other.step, other.significant)
        return left == right or rounds_to(*exactly) or rounds_to(*reversed(exactly))
    if _is_infinite(one) or _is_infinite(other):
        return _is_infinite(one) and one == other
    return _rounds_numerically(one, other) or agree(one, _with_constant_of(one, other), is_close)


def _with_constant_of(one: Node, other: Node) -> Node:
    """Write the constant of integration of one sum, C or c, as the other sum does."""
    mine, theirs = ([part for part in node.parts if part in _CONSTANTS_OF_INTEGRATION] for node in (one, other))
    is_constant = one.head == other.head == "+" and len(mine) == len(theirs) == 1 and mine != theirs
    if not is_constant or mine[0].label in names(other) or theirs[0].label in names(one) or len(names(one)) < 2:
        return other
    return Node("+", tuple(mine[0] if part == theirs[0] else part for part in other.parts))


def _rounds_numerically(one: Node, other: Node) -> bool:
    decimal, value = (one, other) if one.head == "number" else (other, one)
    tolerance = Number(decimal.value, decimal.step, decimal.significant).tolerance
    if tolerance is None or names(value):
        return False
    try:
        exactly = numeric(value, {})
    except UndefinedError:
        return False
    return bool(abs(exactly - numeric(decimal, {})) <= float(tolerance))


def _is_infinite(node: Node) -> bool:
    return node in (INFINITY, MINUS_INFINITY)


def agree(one: Node, other: Node, test: Callable[..., bool]) -> bool | None:
    """Test two expressions at several points; a single one at which they differ settles it.

    Once they agree everywhere they must do so to twice the digits, too.
    """
    passed = 0
    for point in _points(one, other):
        try:
            for digits in (DIGITS,) if passed else (DIGITS, 2 * DIGITS):
                if not test(numeric(one, point, digits=digits), numeric(other, point, digits=digits), digits=digits):
                    return False
        except UndefinedError:
            continue
        passed += 1
        if passed == ENOUGH or not point:
            return True
    return None


def _points(one: Node, other: Node) -> Iterator[Mapping[str, Fraction]]:
    """Yield points, every other one with signs; radicals and logarithms are compared where they are real."""
    variables = sorted(names(one) | names(other))
    has_signs = not (_has_radical(one) or _has_radical(other))
    for shift in range(len(POINTS)):
        yield {
            variable: (-1 if has_signs and (shift + place) % 2 else 1)
            * (POINTS[(shift + 3 * place) % len(POINTS)] + place)
            for place, variable in enumerate(variables)
        }


def _has_radical(node: Node) -> bool:
    """Tell whether a root, a logarithm or a power of unknown exponent is taken somewhere."""
    is_root = node.head == "^" and (exact(node.parts[1]) or Fraction(1, 2)).denominator != 1
    return (
        is_root
        or (node.head == "call" and node.label in ("ln", "log", "lg", "root"))
        or any(map(_has_radical, node.parts))
    )
