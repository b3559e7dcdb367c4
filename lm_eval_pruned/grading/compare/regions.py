"""Regions of the real line: inequalities in one variable joined by "and" or "or", and unions of intervals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import reduce
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from lm_eval_pruned.grading.compare.evaluate import UndefinedError, evaluate_exactly, evaluate_numerically, free_names
from lm_eval_pruned.grading.compare.intervals import REALS, interval, read_bound
from lm_eval_pruned.grading.limits import MAX_REGION_BOUNDS
from lm_eval_pruned.grading.read.tree import INFINITY, MINUS_INFINITY, Head, Node

# Decimal places to which an irrational bound is rounded.
PLACES = 20


class _Bound(NamedTuple):
    """One end of an interval.

    `position` is where it is on the real line. A bound that is excluded lies to one side of it: 1 for a lower bound,
    -1 for an upper one, 0 for a bound that is included.
    """

    position: Fraction | float
    side: int
    node: Node


class _Interval(NamedTuple):
    """All numbers between two bounds."""

    low: _Bound
    high: _Bound


_Region = list[_Interval]
_order = attrgetter("position", "side")
_REAL_LINE = _Interval(_Bound(-float("inf"), 1, MINUS_INFINITY), _Bound(float("inf"), -1, INFINITY))


def solve_region(node: Node) -> Node | None:
    r"""Write inequalities in one variable joined by "and", "or" or commas as one relation `x \in S`, or return None.

    Commas mean "and" or, if that leaves nothing, "or"; if one member implies all others, they are not joined.

    Example:
        >>> from lm_eval_pruned.grading.read.parser import read
        >>> solve_region(read(r"x>0\land x\le 4")).parts[1] == read("(0, 4]")
        True
        >>> solve_region(read(r"x<0, x>4")) == solve_region(read(r"x<0\lor x>4"))
        True
        >>> solve_region(read(r"x>0\land y>0")), solve_region(read("x>2, x>3"))
        (None, None)
    """
    relations = list(_relations(node))
    bounds = [read_bound(relation) for relation in relations]
    variables = {bound.variable for bound in bounds if bound}
    if None in bounds or len(variables) != 1 or len(bounds) > MAX_REGION_BOUNDS:
        return None
    try:
        region = _combine(node)
    except UndefinedError:
        return None
    if region is None:
        return None
    written = _to_node(region)
    is_point = written.head == "set" and len(written.parts) == 1
    return Node(
        "relation", (variables.pop(), written.parts[0] if is_point else written), label="=" if is_point else "in"
    )


def simplify_sets(sets: Node) -> Node:
    """Write unions, intersections and differences of intervals as separate intervals, or return the node unchanged."""
    try:
        return _to_node(_from_node(sets))
    except UndefinedError:
        return sets


def _relations(node: Node) -> Iterator[Node]:
    if node.head not in ("list", "and", "or"):
        yield node
        return
    for part in node.parts:
        yield from _relations(part)


def _combine(node: Node) -> _Region | None:
    """Return the region of a tree of relations, or None if one of them bounds no variable or commas join nothing."""
    if node.head not in ("list", "and", "or"):
        bound = read_bound(node)
        return _from_node(bound.region) if bound else None
    parts = [part for part in map(_combine, node.parts) if part is not None]
    if len(parts) < len(node.parts):
        return None
    # That a variable is real adds nothing.
    parts = [part for part in parts if part != [_REAL_LINE]] or [[_REAL_LINE]]
    if len(parts) == 1:
        return parts[0]
    if node.head == "and":
        return reduce(_intersect, parts)
    if node.head == "or":
        return _merge(chain.from_iterable(parts))
    region = reduce(_intersect, parts) or _merge(chain.from_iterable(parts))
    return None if _positions(region) in map(_positions, parts) else region


def _from_node(node: Node) -> _Region:
    match node.head:
        case "bracket" if len(node.parts) == 2:
            low, high = node.parts
            lower = _Bound(_position_of(low), int(node.label[0] == "("), low)
            upper = _Bound(_position_of(high), -int(node.label[1] == ")"), high)
            return [_Interval(lower, upper)] if _order(lower) <= _order(upper) else []
        case "set":
            points = [_Bound(_position_of(part), 0, part) for part in node.parts]
            return _merge(_Interval(point, point) for point in points)
        case "union":
            return _merge(chain.from_iterable(map(_from_node, node.parts)))
        case "intersection":
            return reduce(_intersect, map(_from_node, node.parts))
        case "difference":
            first, *others = map(_from_node, node.parts)
            return reduce(_subtract, others, first)
        case "name" if node == REALS:
            return [_REAL_LINE]
    raise UndefinedError(f"no region: {node.head}")


def _position_of(node: Node) -> Fraction | float:
    if node in (INFINITY, MINUS_INFINITY):
        return float("inf") if node == INFINITY else -float("inf")
    value = evaluate_exactly(node)
    if value is not None:
        return value
    if free_names(node):
        raise UndefinedError("a variable bound")
    approximate = evaluate_numerically(node, {})
    if approximate.imag:
        raise UndefinedError("a bound that is not real")
    return Fraction(int(approximate.real * 10**PLACES), 10**PLACES)


def _intersect(ones: _Region, others: _Region) -> _Region:
    pairs = ((one, other) for one in ones for other in others)
    cuts = (
        _Interval(max(one.low, other.low, key=_order), min(one.high, other.high, key=_order)) for one, other in pairs
    )
    return [cut for cut in cuts if _order(cut.low) <= _order(cut.high)]


def _subtract(ones: _Region, others: _Region) -> _Region:
    """Remove the second region from the first: intersect it with the gaps around each interval of the second."""
    for part in others:
        below = _Bound(part.low.position, part.low.side - 1, part.low.node)
        above = _Bound(part.high.position, part.high.side + 1, part.high.node)
        gaps = [_Interval(_REAL_LINE.low, below), _Interval(above, _REAL_LINE.high)]
        ones = _intersect(ones, [gap for gap in gaps if _order(gap.low) <= _order(gap.high)])
    return ones


def _merge(intervals: Iterable[_Interval]) -> _Region:
    """Sort intervals and merge those without a gap between them."""
    region: _Region = []
    for part in sorted(intervals, key=lambda part: _order(part.low)):
        if region and _order(part.low) <= (region[-1].high.position, region[-1].high.side + 1):
            region[-1] = _Interval(region[-1].low, max(region[-1].high, part.high, key=_order))
        else:
            region.append(part)
    return region


def _positions(region: _Region) -> list[tuple[object, ...]]:
    return [(_order(part.low), _order(part.high)) for part in region]


def _to_node(region: _Region) -> Node:
    parts = [
        Node("set", (low.node,))
        if low.position == high.position
        else interval(low.node, high.node, low="(" if low.side else "[", high=")" if high.side else "]")
        for low, high in region
    ]
    if len(parts) == 1:
        return parts[0]
    head: Head = "union" if parts else "set"
    return Node(head, tuple(parts))
