"""What an answer says, as a tree: numbers, names and operations, and the collections and relations made of them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

# Values: "number" (its `value`), "name" (a variable, a constant or an unknown function of one), sums, products, powers
# and "call" (of the function `label`). Collections: "list" has no brackets, "bracket" is a tuple or an interval whose
# two brackets are its `label`, "matrix" has rows. A "relation" has the signs between its parts as `label`, and "and"
# and "or" join such.
Head = Literal[
    "number", "name", "+", "*", "^", "call", "plus-minus", "and", "or",
    "list", "set", "bracket", "matrix", "row", "union", "intersection", "difference", "ratio", "relation",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an answer. `step` is one unit of the last place of a decimal that was written as one."""

    head: Head
    parts: tuple[Node, ...] = ()
    label: str = ""
    value: Fraction = Fraction(0)
    step: Fraction | None = None
    significant: int = 0


# Relations with their sides exchanged.
FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!=", "==": "=="}
VALUES: frozenset[Head] = frozenset(("number", "name", "+", "*", "^", "call"))


def number(value: Fraction | int) -> Node:
    """Return an exact number."""
    return Node("number", value=Fraction(value))


def name(label: str) -> Node:
    """Return a name."""
    return Node("name", label=label)


def call(function: str, *arguments: Node) -> Node:
    """Return a function of something."""
    return Node("call", arguments, label=function)


def product(*factors: Node) -> Node:
    """Return a product, flat, so that a long one is not deep; of one factor, the factor."""
    return factors[0] if len(factors) == 1 else flat("*", *factors)


def flat(head: Head, first: Node, *others: Node) -> Node:
    """Return a node whose first part, if it is of the same head, lends its parts."""
    return Node(head, (*(first.parts if first.head == head else (first,)), *others))


def total(*terms: Node) -> Node:
    """Return a sum; of one term, the term."""
    return terms[0] if len(terms) == 1 else Node("+", terms)


def power(base: Node, exponent: Node) -> Node:
    """Return a power."""
    return Node("^", (base, exponent))


def negative(node: Node) -> Node:
    """Return the negative of a value."""
    return (
        Node("number", value=-node.value, step=node.step, significant=node.significant)
        if (node.head == "number")
        else product(number(-1), node)
    )


def quotient(above: Node, below: Node) -> Node:
    """Return a quotient."""
    return product(above, power(below, number(-1)))


INFINITY = name("\\infty")
MINUS_INFINITY = negative(INFINITY)
