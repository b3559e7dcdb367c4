"""The set of values that an inequality, a membership or an excluded value allows for one variable."""

from __future__ import annotations

from typing import NamedTuple

from lm_eval_pruned.grading.compare.evaluate import evaluate_exactly, free_names
from lm_eval_pruned.grading.compare.linear import solve_linear
from lm_eval_pruned.grading.read.tree import FLIPPED, INFINITY, MINUS_INFINITY, VALUES, Node, name, negative
from lm_eval_pruned.grading.vocabulary import CONSTANTS

REALS = name("\\mathbbR")

_CLOSED = ("<=", ">=")
_BOUNDS = ("<", ">", "!=", *_CLOSED)


class Bounded(NamedTuple):
    """A variable and the set of values that it may have."""

    variable: Node
    region: Node


def read_bound(relation: Node) -> Bounded | None:
    """Return the variable that a relation bounds by constants, with its set of values, or None."""
    if relation.head != "relation":
        return None
    sides, signs = relation.parts, relation.label.split()
    if relation.label == "in" and sides[0].head == "name":
        return Bounded(*sides)
    if any(sign not in _BOUNDS for sign in signs) or any(side.head not in VALUES for side in sides):
        return None
    variables = [index for index, side in enumerate(sides) if side.head == "name" and side.label not in CONSTANTS]
    if len(variables) != 1 or any(free_names(side) for index, side in enumerate(sides) if index != variables[0]):
        simpler = _without_bars(relation) or solve_linear(relation)
        return read_bound(simpler) if simpler else None
    if len(sides) == 2:
        sign = signs[0] if variables[0] == 0 else FLIPPED[signs[0]]
        return Bounded(sides[variables[0]], _half_line(sign, sides[1 - variables[0]]))
    if len(sides) == 3 and variables == [1] and "!=" not in signs and signs[0][0] == signs[1][0]:
        ends, bounds = (sides[::2], signs) if signs[0][0] == "<" else (sides[::-2], signs[::-1])
        low, high = ("[" if bounds[0] in _CLOSED else "("), ("]" if bounds[1] in _CLOSED else ")")
        return Bounded(sides[1], interval(*ends, low=low, high=high))
    return None


def _without_bars(relation: Node) -> Node | None:
    """Write `|x-1|<3` as `-3<x-1<3`, or return None; `|x-1|>3` leaves two ranges and is not rewritten."""
    left, right = relation.parts[:2]
    sign = relation.label
    if right.head == "call" and right.label == "abs":
        left, right, sign = right, left, FLIPPED.get(sign, "")
    bound = evaluate_exactly(right)
    if len(relation.parts) > 2 or left.head != "call" or left.label != "abs" or bound is None or bound <= 0:
        return None
    if sign not in ("<", "<="):
        return None
    return Node("relation", (negative(right), left.parts[0], right), label=f"{sign} {sign}")


def _half_line(sign: str, bound: Node) -> Node:
    """Return the values of a variable that is in this relation to a bound."""
    if sign == "!=":
        return Node("union", (interval(MINUS_INFINITY, bound), interval(bound, INFINITY)))
    if sign[0] == "<":
        return interval(MINUS_INFINITY, bound, high="]" if sign in _CLOSED else ")")
    return interval(bound, INFINITY, low="[" if sign in _CLOSED else "(")


def interval(start: Node, end: Node, *, low: str = "(", high: str = ")") -> Node:
    """Return the expression tree of an interval, open unless `low` and `high` are other brackets.

    Args:
        start: tree of the lower bound.
        end: tree of the upper bound.
        low: opening bracket, "(" or "[".
        high: closing bracket, ")" or "]".
    """
    return Node("bracket", (start, end), label=low + high)
