"""A variable that is bounded stands in an interval, and numbers left out of the real line part it into several."""

from __future__ import annotations

from typing import NamedTuple

from lm_eval_pruned.grading.compare.evaluate import exact, names
from lm_eval_pruned.grading.compare.linear import solved
from lm_eval_pruned.grading.read.tree import FLIPPED, INFINITY, MINUS_INFINITY, VALUES, Node, name, negative
from lm_eval_pruned.grading.vocabulary import CONSTANTS

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
        simpler = _without_bars(relation) or solved(relation)
        return bounded(simpler) if simpler else None
    if len(sides) == 2:
        sign = signs[0] if places[0] == 0 else FLIPPED[signs[0]]
        return Bounded(sides[places[0]], _half_line(sign, sides[1 - places[0]]))
    if len(sides) == 3 and places == [1] and "!=" not in signs and signs[0][0] == signs[1][0]:
        ends, bounds = (sides[::2], signs) if signs[0][0] == "<" else (sides[::-2], signs[::-1])
        low, high = ("[" if bounds[0] in _CLOSED else "("), ("]" if bounds[1] in _CLOSED else ")")
        return Bounded(sides[1], between(*ends, low=low, high=high))
    return None


def _without_bars(relation: Node) -> Node | None:
    r"""Write `|x-1|<3` as `-3<x-1<3`, or return None; where the distance is at least something, there are two ways."""
    left, right = relation.parts[:2]
    sign = relation.label
    if right.head == "call" and right.label == "abs":
        left, right, sign = right, left, FLIPPED.get(sign, "")
    bound = exact(right)
    if len(relation.parts) > 2 or left.head != "call" or left.label != "abs" or bound is None or bound <= 0:
        return None
    if sign not in ("<", "<="):
        return None
    return Node("relation", (negative(right), left.parts[0], right), label=f"{sign} {sign}")


def _half_line(sign: str, bound: Node) -> Node:
    """Return where a variable is that stands in this relation to a bound."""
    if sign == "!=":
        return Node("union", (between(MINUS_INFINITY, bound), between(bound, INFINITY)))
    if sign[0] == "<":
        return between(MINUS_INFINITY, bound, high="]" if sign in _CLOSED else ")")
    return between(bound, INFINITY, low="[" if sign in _CLOSED else "(")


def between(start: Node, end: Node, *, low: str = "(", high: str = ")") -> Node:
    """Return an interval, open unless its brackets say otherwise."""
    return Node("bracket", (start, end), label=low + high)
