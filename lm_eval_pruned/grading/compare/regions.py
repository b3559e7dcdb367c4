"""Sets of real numbers, written as intervals, inequalities or both, compared by which numbers belong to them.

Whether a number belongs to a set is tested at its bounds, next to them, between them and at some other numbers, so that
no inequality has to be solved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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

REALS, _EMPTY = name("\\mathbbR"), name("\\emptyset")

# What each sign allows as the order of two numbers.
_SIGNS = {"<": (-1,), ">": (1,), "<=": (-1, 0), ">=": (0, 1), "=": (0,), "!=": (-1, 1)}
_NEXT = Fraction(1, 10**4)
# Decimal places of irrational numbers, and of what is computed from them.
_PLACES = 20
_COMPUTED_PLACES = 12
_Number = Fraction | float


class Region(NamedTuple):
    """A set of real numbers: the variable that has them, if any, and the bounds that are known.

    The bounds of `|x-2|<3` are not known, since it is not solved.
    """

    variable: Node | None
    node: Node
    bounds: frozenset[_Number] = frozenset()
    is_solved: bool = True


def read_region(node: Node) -> Region | None:
    r"""Return the set of real numbers that a node describes, or None.

    Commas between inequalities mean "and" or, if that leaves nothing, "or"; if one inequality implies all others, they
    are a list.

    Example:
        >>> from lm_eval_pruned.grading.read.parser import read
        >>> same_region(read_region(read("x<0, 2x>8")), read_region(read(r"(-\infty, 0)\cup(4, \infty)")))
        True
        >>> read_region(read("x>2, x>3")), read_region(read("(2, 1)"))
        (None, None)
    """
    try:
        return _read(node)
    except UndefinedError:
        return None


def same_region(one: Region, other: Region) -> bool:
    """Tell whether the same numbers belong to two regions; at least one of them must be solved."""
    if one.variable and other.variable and one.variable != other.variable:
        return False
    points = _points(one.bounds | other.bounds)
    return (one.is_solved or other.is_solved) and all(_holds(one, point) == _holds(other, point) for point in points)


def _read(node: Node) -> Region:
    match node.head:
        case "name" if node in (REALS, _EMPTY):
            return Region(None, node)
        case "bracket" if len(node.parts) == 2:
            low, high = map(_position, node.parts)
            if low < high or (low == high and node.label == "[]"):
                return Region(None, node, frozenset((low, high)))
        case "set":
            return Region(None, node, frozenset(map(_position, node.parts)))
        case "union" | "intersection" | "difference":
            return _join(node, [_read(part) for part in node.parts])
        case "relation" if node.label == "in" and node.parts[0].head == "name":
            return _read(node.parts[1])._replace(variable=node.parts[0])
        case "relation":
            return _read_inequality(node)
        case "list" | "and" | "or" if len(node.parts) <= MAX_REGION_BOUNDS:
            # That a variable is real adds nothing.
            regions = [region for region in map(_read, node.parts) if region.node != REALS]
            joined = _join(node, regions)
            if joined.variable and all(region.variable for region in regions):
                return _choose_conjunction(joined, regions) if node.head == "list" else joined
    raise UndefinedError(f"no region: {node.head}")


def _read_inequality(relation: Node) -> Region:
    sides = relation.parts
    if any(sign not in _SIGNS for sign in relation.label.split()) or any(side.head not in VALUES for side in sides):
        raise UndefinedError(f"no inequality: {relation.label}")
    bounds = frozenset(_position(side) for side in sides if not free_names(side))
    varying = {side for side in sides if free_names(side)}
    is_solved = len(varying) == 1 and all(
        side.head == "name" or (side.head == "call" and len(side.label) == 1) for side in varying
    )
    names = frozenset().union(*map(free_names, varying))
    if not is_solved and (len(names) != 1 or "=" in relation.label.split()):
        raise UndefinedError("not one variable")
    if not is_solved:
        bounds |= {sign * value for value in _numbers(relation) for sign in (1, -1)}
    return Region(varying.pop() if is_solved else name(min(names)), relation, bounds, is_solved)


def _numbers(node: Node) -> Iterator[Fraction]:
    if node.head == "number":
        yield node.value
    for part in node.parts:
        yield from _numbers(part)


def _join(node: Node, regions: list[Region]) -> Region:
    if len({region.variable for region in regions}) != 1:
        raise UndefinedError("not one variable")
    bounds = frozenset().union(*(region.bounds for region in regions))
    return Region(regions[0].variable, node, bounds, all(region.is_solved for region in regions))


def _choose_conjunction(listed: Region, regions: list[Region]) -> Region:
    rows = [[_holds(region, point) for region in regions] for point in _points(listed.bounds)]
    is_and = any(map(all, rows))
    joined = [all(row) if is_and else any(row) for row in rows]
    if len(regions) > 1 and joined in map(list, zip(*rows, strict=True)):
        raise UndefinedError("one member implies the others")
    return listed._replace(node=Node("and" if is_and else "or", tuple(region.node for region in regions)))


def _position(node: Node) -> _Number:
    if node in (INFINITY, MINUS_INFINITY):
        return float("inf") if node == INFINITY else -float("inf")
    value = evaluate_exactly(node)
    if value is None and free_names(node):
        raise UndefinedError("a variable bound")
    return _approximate(node, {}) if value is None else value


def _approximate(node: Node, point: dict[str, Fraction]) -> Fraction:
    value = evaluate_numerically(node, point)
    if value.imag:
        raise UndefinedError("not real")
    return Fraction(round(value.real * 10**_PLACES), 10**_PLACES)


def _points(bounds: Iterable[_Number]) -> list[Fraction]:
    finite = sorted(bound for bound in bounds if isinstance(bound, Fraction)) or [Fraction(0)]
    near = [bound + step for bound in finite for step in (-_NEXT, 0, _NEXT)]
    between = [(low + high) / 2 for low, high in pairwise(finite)]
    beyond = [finite[0] - distance for distance in (1, 10**6)] + [finite[-1] + distance for distance in (1, 10**6)]
    return near + between + beyond + [sign * point for point in POINTS for sign in (1, -1)]


def _holds(region: Region, point: Fraction) -> bool:
    try:
        return _contains(region.node, region.variable, point)
    except UndefinedError:
        return False


def _contains(node: Node, variable: Node | None, point: Fraction) -> bool:
    parts = node.parts
    match node.head:
        case "name":
            return node == REALS
        case "bracket":
            low, high = (_order(point, _position(part)) for part in parts)
            return low >= (node.label[0] == "(") and high <= -(node.label[1] == ")")
        case "set":
            return any(_order(point, _position(part)) == 0 for part in parts)
        case "union" | "or":
            return any(_contains(part, variable, point) for part in parts)
        case "intersection" | "and":
            return all(_contains(part, variable, point) for part in parts)
        case "difference":
            return _contains(parts[0], variable, point) and not any(
                _contains(part, variable, point) for part in parts[1:]
            )
        case "relation" if node.label == "in":
            return _contains(parts[1], variable, point)
    at = {label: point for side in parts for label in free_names(side)}
    values = [
        point if side == variable else _approximate(side, at) if free_names(side) else _position(side) for side in parts
    ]
    if any(side != variable and free_names(side) for side in parts):
        values = [value if isinstance(value, float) else round(value, _COMPUTED_PLACES) for value in values]
    signs = node.label.split()
    return all(_order(*pair) in _SIGNS[sign] for pair, sign in zip(pairwise(values), signs, strict=True))


def _order(one: _Number, other: _Number) -> int:
    """Return -1, 0 or 1 for a smaller, an equal or a larger first number."""
    return (one > other) - (one < other)
