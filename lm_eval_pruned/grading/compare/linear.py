"""Linear expressions in one variable with rational coefficients, and solutions of linear inequalities."""

from __future__ import annotations

from fractions import Fraction
from math import prod
from typing import NamedTuple

from lm_eval_pruned.grading.compare.evaluate import evaluate_exactly
from lm_eval_pruned.grading.read.tree import FLIPPED, Node
from lm_eval_pruned.grading.vocabulary import CONSTANTS


class Linear(NamedTuple):
    """slope * variable + offset; the variable of a constant is empty."""

    variable: str
    slope: Fraction
    offset: Fraction


def read_linear(node: Node) -> Linear | None:
    """Return an expression in the form of `Linear`, or None if it is not linear.

    Example:
        >>> from lm_eval_pruned.grading.read.parser import read
        >>> read_linear(read("2(x-3)+1")), read_linear(read("x^{2}"))
        (Linear(variable='x', slope=Fraction(2, 1), offset=Fraction(-5, 1)), None)
    """
    if node.head == "name" and node.label not in CONSTANTS:
        return Linear(node.label, Fraction(1), Fraction(0))
    if node.head not in ("+", "*"):
        value = evaluate_exactly(node)
        return None if value is None else Linear("", Fraction(0), value)
    parts = [part for part in map(read_linear, node.parts) if part]
    varying = [part for part in parts if part.variable]
    if len(parts) < len(node.parts) or len({part.variable for part in varying}) > 1:
        return None
    variable = varying[0].variable if varying else ""
    if node.head == "+":
        return Linear(
            variable,
            sum((part.slope for part in parts), Fraction(0)),
            sum((part.offset for part in parts), Fraction(0)),
        )
    if len(varying) > 1:
        return None
    factor = prod((part.offset for part in parts if not part.variable), start=Fraction(1))
    if not varying:
        return Linear("", Fraction(0), factor)
    return Linear(variable, factor * varying[0].slope, factor * varying[0].offset)


def solve_linear(relation: Node) -> Node | None:
    """Write `2x-6>0` as `x>3` and `1<2x+3<9` as `-1<x<3`, or return None for other relations."""
    sides, signs = [read_linear(side) for side in relation.parts], relation.label.split()
    known = [side for side in sides if side]
    variables = {side.variable for side in known} - {""}
    if len(known) < len(sides) or len(variables) != 1 or len(sides) not in (2, 3):
        return None
    if len(sides) == 2:
        known = [Linear("", Fraction(0), Fraction(0)), _minus(known[0], known[1])]
        signs = [FLIPPED[signs[0]]]
    middle = known[1]
    ends = [side for index, side in enumerate(known) if index != 1]
    if not middle.slope or any(end.variable for end in ends):
        return None
    bounds = [Node("number", value=(end.offset - middle.offset) / middle.slope) for end in ends]
    if middle.slope < 0:
        signs = [FLIPPED[sign] for sign in signs]
    parts = [bounds[0], Node("name", label=middle.variable), *bounds[1:]]
    return Node("relation", tuple(parts), label=" ".join(signs))


def _minus(one: Linear, other: Linear) -> Linear:
    return Linear(one.variable or other.variable, one.slope - other.slope, one.offset - other.offset)
