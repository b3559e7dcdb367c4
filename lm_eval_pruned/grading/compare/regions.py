"""Sets of real numbers, written as intervals, inequalities or both, compared by which numbers belong to them.

Whether a number belongs to a set is tested at its bounds, next to them, between them and at some other numbers, so that
no inequality has to be solved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from lm_eval_pruned.grading.compare.evaluate import (
    POINTS,
    UndefinedError,
    evaluate_exactly,
    evaluate_numerically,
    free_names,
)
from lm_eval_pruned.grading.limits import MAX_REGION_BOUNDS
from lm_eval_pruned.grading.read.tree import INFINITY, MINUS_INFINITY, VALUES, Node, name

_REALS, _EMPTY = name("\\mathbbR"), name("\\emptyset")

# What each sign allows as the order of two numbers.
_SIGNS = {"<": (-1,), ">": (1,), "<=": (-1, 0), ">=": (0, 1), "=": (0,), "!=": (-1, 1)}
_NEXT = Fraction(1, 10**4)
# Decimal places of irrational numbers, and of what is computed from them.
_PLACES = 20
_COMPUTED_PLACES = 12
_Number = Fraction | float


class _Region(NamedTuple):
    """A set of real numbers: the variable that has them, if any, its known bounds, and whether a number is in it.

    The bounds of `|x-2|<3` are not known, since it is not solved.
    """

    variable: Node | None
    bounds: frozenset[_Number]
    holds: Callable[[Fraction], bool]
    is_solved: bool = True


def same_region(one: Node, other: Node) -> bool:
    r"""Return whether two nodes describe the same set of real numbers; at least one of them must be solved.

    Commas between inequalities mean "and" or, if that leaves nothing, "or"; if one inequality implies all others, they
    are a list and no set.

    Example:
        >>> from lm_eval_pruned.grading.read.parser import read
        >>> same_region(read("x<0, 2x>8"), read(r"(-\infty, 0)\cup(4, \infty)"))
        True
        >>> same_region(read("x>2, x>3"), read("x>3")), same_region(read("(2, 1)"), read("(2, 1)"))
        (False, False)
    """
    try:
        left, right = _read(one), _read(other)
    except UndefinedError:
        return False
    if left.variable and right.variable and left.variable != right.variable:
        return False
    points = _points(left.bounds | right.bounds)
    return (left.is_solved or right.is_solved) and all(left.holds(point) == right.holds(point) for point in points)


def _read(node: Node) -> _Region:
    parts, label = node.parts, node.label
    match node.head:
        case "name" if node in (_REALS, _EMPTY):
            return _Region(None, frozenset(), lambda _: node == _REALS)
        case "bracket" if len(parts) == 2:
            low, high = map(_position, parts)
            if low < high or (low == high and label == "[]"):
                signs = ("<" if label[0] == "(" else "<=", "<" if label[1] == ")" else "<=")
                return _Region(None, frozenset((low, high)), lambda point: _are_in_order((low, point, high), signs))
        case "set":
            members = frozenset(map(_position, parts))
            return _Region(None, members, members.__contains__)
        case "union":
            return _join([_read(part) for part in parts], any)
        case "intersection":
            return _join([_read(part) for part in parts], all)
        case "difference":
            return _join([_read(part) for part in parts], lambda truths: truths[0] and not any(truths[1:]))
        case "relation" if label == "in" and parts[0].head == "name":
            return _read(parts[1])._replace(variable=parts[0])
        case "relation":
            return _read_inequality(node)
        case "list" | "and" | "or" if len(parts) <= MAX_REGION_BOUNDS:
            # That a variable is real adds nothing.
            regions = [_read(part) for part in parts if part.parts[-1:] != (_REALS,)]
            if all(region.variable for region in regions):
                return (
                    _join_listed(regions) if node.head == "list" else _join(regions, all if node.head == "and" else any)
                )
    raise UndefinedError(f"no region: {node.head}")


def _read_inequality(relation: Node) -> _Region:
    sides, signs = relation.parts, relation.label.split()
    if any(sign not in _SIGNS for sign in signs) or any(side.head not in VALUES for side in sides):
        raise UndefinedError(f"no inequality: {relation.label}")
    bounds = frozenset(_position(side) for side in sides if not free_names(side))
    varying = {side for side in sides if free_names(side)}
    is_solved = len(varying) == 1 and all(
        side.head == "name" or (side.head == "call" and len(side.label) == 1) for side in varying
    )
    names = frozenset().union(*map(free_names, varying))
    if not is_solved and (len(names) != 1 or "=" in signs):
        raise UndefinedError("not one variable")
    variable = varying.pop() if is_solved else name(min(names))

    def holds(point: Fraction) -> bool:
        at = dict.fromkeys(names, point)
        try:
            values = [point if side == variable else _position(side, at) for side in sides]
        except UndefinedError:
            return False
        return _are_in_order(values if is_solved else map(_rounded, values), signs)

    return _Region(variable, bounds, holds, is_solved)


def _join(regions: list[_Region], holds: Callable[[list[bool]], bool]) -> _Region:
    """Join regions of one variable, or of none, by what is true of a number in the region if it is in each of them."""
    if len({region.variable for region in regions}) != 1:
        raise UndefinedError("not one variable")
    bounds = frozenset().union(*(region.bounds for region in regions))
    is_solved = all(region.is_solved for region in regions)
    return _Region(
        regions[0].variable, bounds, lambda point: holds([region.holds(point) for region in regions]), is_solved
    )


def _join_listed(regions: list[_Region]) -> _Region:
    rows = [[region.holds(point) for region in regions] for point in _points(_join(regions, all).bounds)]
    how = all if any(map(all, rows)) else any
    if len(regions) > 1 and [how(row) for row in rows] in map(list, zip(*rows, strict=True)):
        raise UndefinedError("one member implies the others")
    return _join(regions, how)


def _position(node: Node, at: Mapping[str, Fraction] | None = None) -> _Number:
    """Return the number that an expression is at the values of its variables."""
    if node in (INFINITY, MINUS_INFINITY):
        return float("inf") if node == INFINITY else -float("inf")
    exact = evaluate_exactly(node)
    if exact is not None:
        return exact
    if at is None and free_names(node):
        raise UndefinedError("a variable bound")
    value = evaluate_numerically(node, at or {})
    if value.imag:
        raise UndefinedError("not real")
    return Fraction(round(value.real * 10**_PLACES), 10**_PLACES)


def _rounded(value: _Number) -> _Number:
    return value if isinstance(value, float) else round(value, _COMPUTED_PLACES)


def _points(bounds: Iterable[_Number]) -> list[Fraction]:
    finite = sorted(bound for bound in bounds if isinstance(bound, Fraction)) or [Fraction(0)]
    near = [bound + step for bound in finite for step in (-_NEXT, 0, _NEXT)]
    between = [(low + high) / 2 for low, high in pairwise(finite)]
    beyond = [finite[0] - distance for distance in (1, 10**6)] + [finite[-1] + distance for distance in (1, 10**6)]
    return near + between + beyond + [sign * point for point in POINTS for sign in (1, -1)]


def _are_in_order(values: Iterable[_Number], signs: Sequence[str]) -> bool:
    orders = [(one > other) - (one < other) for one, other in pairwise(values)]
    return all(order in _SIGNS[sign] for order, sign in zip(orders, signs, strict=True))
