"""A variable that is bounded stands in an interval, and numbers left out of the real line part it into several."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from lm_eval_pruned.grading.evaluate import CONSTANTS, exact, names
from lm_eval_pruned.grading.tree import INFINITY, MINUS_INFINITY, VALUES, Node, name

FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!=", "==": "=="}
REALS = name("\\mathbbR")

_CLOSED = ("<=", ">=")
_BOUNDS = ("<", ">", "!=", *_CLOSED)


class Bounded(NamedTuple):
    """A variable and the set that it is in."""

    variable: Node
    region: Node


def bounded(relation: Node) -> Bounded | None:
    """Return where a relation that bounds one variable by constants says it is, or None."""
    if relation.head != "relation":
        return None
    sides, signs = relation.parts, relation.label.split()
    if relation.label == "in" and sides[0].head == "name":
        return Bounded(*sides)
    if any(sign not in _BOUNDS for sign in signs) or any(side.head not in VALUES for side in sides):
        return None
    places = [place for place, side in enumerate(sides) if side.head == "name" and side.label not in CONSTANTS]
    if len(places) != 1 or any(names(side) for place, side in enumerate(sides) if place != places[0]):
        return None
    if len(sides) == 2:
        sign = signs[0] if places[0] == 0 else FLIPPED[signs[0]]
        return Bounded(sides[places[0]], _half_line(sign, sides[1 - places[0]]))
    if len(sides) == 3 and places == [1] and "!=" not in signs and signs[0][0] == signs[1][0]:
        ends, bounds = (sides[::2], signs) if signs[0][0] == "<" else (sides[::-2], signs[::-1])
        low, high = ("[" if bounds[0] in _CLOSED else "("), ("]" if bounds[1] in _CLOSED else ")")
        return Bounded(sides[1], between(*ends, low=low, high=high))
    return None


def _half_line(sign: str, bound: Node) -> Node:
    """Return where a variable is that stands in this relation to a bound."""
    if sign == "!=":
        return Node("union", (between(MINUS_INFINITY, bound), between(bound, INFINITY)))
    if sign[0] == "<":
        return between(MINUS_INFINITY, bound, high="]" if sign in _CLOSED else ")")
    return between(bound, INFINITY, low="[" if sign in _CLOSED else "(")


def reals_without(sets: Sequence[Node]) -> Node | None:
    """Return the intervals that are left of the real line without some rational numbers."""
    points = [(exact(point), point) for part in sets for point in part.parts if part.head == "set"]
    if not points or any(value is None for value, _ in points) or any(part.head != "set" for part in sets):
        return None
    ends = [MINUS_INFINITY, *(point for _, point in sorted(points, key=lambda pair: pair[0] or 0)), INFINITY]
    return Node("union", tuple(between(start, end) for start, end in pairwise(ends)))


def between(start: Node, end: Node, *, low: str = "(", high: str = ")") -> Node:
    """Return an interval, open unless its brackets say otherwise."""
    return Node("bracket", (start, end), label=low + high)
