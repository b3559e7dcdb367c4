"""Inequalities in one variable that are joined by "and" or "or" describe a region of the real line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import reduce
from operator import attrgetter
from typing import NamedTuple

from lm_eval_pruned.grading.compare.evaluate import UndefinedError, exact, names, numeric
from lm_eval_pruned.grading.compare.intervals import REALS, between, bounded
from lm_eval_pruned.grading.limits import MAX_REGION_BOUNDS
from lm_eval_pruned.grading.read.tree import INFINITY, MINUS_INFINITY, Head, Node

# Where a bound that is not rational stands is rounded to so many places.
PLACES = 20


class _Bound(NamedTuple):
    """A bound stands at a place or, where it is left out, beside it: on side 1 if it is the lower one, else on -1."""

    place: Fraction | float
    side: int
    node: Node


class _Stretch(NamedTuple):
    """What lies between two bounds."""

    low: _Bound
    high: _Bound


_Region = list[_Stretch]
_position = attrgetter("place", "side")
_LINE = _Stretch(_Bound(-float("inf"), 1, MINUS_INFINITY), _Bound(float("inf"), -1, INFINITY))


def region_of(node: Node) -> Node | None:
    r"""Write what inequalities joined by "and", "or" or commas say of one variable as `x \in S`, or return None.

    Commas mean "and" or, where that leaves nothing, "or"; but where one of the members says it all, they join nothing.

    Example:
        >>> from lm_eval_pruned.grading.read.parser import read
        >>> region_of(read(r"x>0\land x\le 4")).parts[1] == read("(0, 4]")
        True
        >>> region_of(read(r"x<0, x>4")) == region_of(read(r"x<0\lor x>4"))
        True
        >>> region_of(read(r"x>0\land y>0")), region_of(read("x>2, x>3"))
        (None, None)
    """
    relations = list(_relations(node))
    bounds = [bounded(relation) for relation in relations]
    variables = {bound.variable for bound in bounds if bound}
    if None in bounds or len(variables) != 1 or len(bounds) > MAX_REGION_BOUNDS:
        return None
    try:
        region = _joined(node)
    except UndefinedError:
        return None
    if region is None:
        return None
    written = _written(region)
    is_point = written.head == "set" and len(written.parts) == 1
    return Node(
        "relation", (variables.pop(), written.parts[0] if is_point else written), label="=" if is_point else "in"
    )


def computed(sets: Node) -> Node:
    """Write a union or intersection of intervals as intervals with gaps between; keep one of anything else."""
    try:
        return _written(_read(sets))
    except UndefinedError:
        return sets


def _relations(node: Node) -> Iterator[Node]:
    if node.head not in ("list", "and", "or"):
        yield node
        return
    for part in node.parts:
        yield from _relations(part)


def _joined(node: Node) -> _Region | None:
    if node.head not in ("list", "and", "or"):
        bound = bounded(node)
        return _read(bound.region) if bound else None
    parts = [part for part in map(_joined, node.parts) if part is not None]
    if len(parts) < len(node.parts):
        return None
    # That a variable is real says nothing new of it.
    parts = [part for part in parts if part != [_LINE]] or [[_LINE]]
    if len(parts) == 1:
        return parts[0]
    if node.head == "and":
        return reduce(_common, parts)
    if node.head == "or":
        return _merged([stretch for part in parts for stretch in part])
    region = reduce(_common, parts) or _merged([stretch for part in parts for stretch in part])
    return None if _positions(region) in map(_positions, parts) else region


def _read(node: Node) -> _Region:
    match node.head:
        case "bracket" if len(node.parts) == 2:
            low, high = node.parts
            stretch = _Stretch(
                _Bound(_place(low), int(node.label[0] == "("), low),
                _Bound(_place(high), -int(node.label[1] == ")"), high),
            )
            return [stretch] if _position(stretch.low) <= _position(stretch.high) else []
        case "set":
            return _merged(
                [_Stretch(_Bound(_place(part), 0, part), _Bound(_place(part), 0, part)) for part in node.parts]
            )
        case "union":
            return _merged([stretch for part in node.parts for stretch in _read(part)])
        case "intersection":
            return reduce(_common, map(_read, node.parts))
        case "difference":
            first, *others = map(_read, node.parts)
            return reduce(_without, others, first)
        case "name" if node == REALS:
            return [_LINE]
    raise UndefinedError(f"no region: {node.head}")


def _place(node: Node) -> Fraction | float:
    if node in (INFINITY, MINUS_INFINITY):
        return float("inf") if node == INFINITY else -float("inf")
    value = exact(node)
    if value is not None:
        return value
    if names(node):
        raise UndefinedError("no place: it varies")
    found = numeric(node, {})
    if found.imag:
        raise UndefinedError("no place: it is not real")
    return Fraction(int(found.real * 10**PLACES), 10**PLACES)


def _common(ones: _Region, others: _Region) -> _Region:
    pairs = ((one, other) for one in ones for other in others)
    cuts = (
        _Stretch(max(one.low, other.low, key=_position), min(one.high, other.high, key=_position))
        for one, other in pairs
    )
    return [cut for cut in cuts if _position(cut.low) <= _position(cut.high)]


def _without(ones: _Region, others: _Region) -> _Region:
    """Leave out of one region what is in another: keep what lies in each of the gaps around a stretch."""
    for stretch in others:
        below = _Bound(stretch.low.place, stretch.low.side - 1, stretch.low.node)
        above = _Bound(stretch.high.place, stretch.high.side + 1, stretch.high.node)
        gaps = [_Stretch(_LINE.low, below), _Stretch(above, _LINE.high)]
        ones = _common(ones, [gap for gap in gaps if _position(gap.low) <= _position(gap.high)])
    return ones


def _merged(stretches: Sequence[_Stretch]) -> _Region:
    """Sort stretches and join those that leave no gap."""
    region: _Region = []
    for stretch in sorted(stretches, key=lambda one: _position(one.low)):
        if region and _position(stretch.low) <= (region[-1].high.place, region[-1].high.side + 1):
            region[-1] = _Stretch(region[-1].low, max(region[-1].high, stretch.high, key=_position))
        else:
            region.append(stretch)
    return region


def _positions(region: _Region) -> list[tuple[object, ...]]:
    return [(_position(stretch.low), _position(stretch.high)) for stretch in region]


def _written(region: _Region) -> Node:
    parts = [
        Node("set", (low.node,))
        if low.place == high.place
        else between(low.node, high.node, low="(" if low.side else "[", high=")" if high.side else "]")
        for low, high in region
    ]
    if len(parts) == 1:
        return parts[0]
    head: Head = "union" if parts else "set"
    return Node(head, tuple(parts))
