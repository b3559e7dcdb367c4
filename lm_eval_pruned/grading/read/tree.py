"""Expression trees of answers: numbers, names and operations, and the collections and relations made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

# Values: "number" (with a `value`), "name" (a variable or constant), sums, products, powers, and "call" of the function
# `label`. Collections: "list" has no brackets, "bracket" is a tuple or an interval whose two brackets are its `label`,
# "matrix" has rows. A "relation" has the signs between its operands as its `label`; "and" and "or" join relations.
Head = Literal[
    "number", "name", "+", "*", "^", "call", "plus-minus", "and", "or",
    "list", "set", "bracket", "matrix", "row", "union", "intersection", "difference", "ratio", "relation",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the tree. Only a "number" has a `value`; `step` and `significant` are those of a `Number`."""

    head: Head
    parts: tuple[Node, ...] = ()
    label: str = ""
    value: Fraction = Fraction(0)
    step: Fraction | None = None
    significant: int = 0


_ASCENDING = {">": "<", ">=": "<="}
VALUES: frozenset[Head] = frozenset(("number", "name", "+", "*", "^", "call"))


def number(value: Fraction | int, step: Fraction | None = None, significant: int = 0) -> Node:
    """Return a number, which is exact or remembers the precision at which it was written."""
    exact = Fraction(value) if isinstance(value, int) else value
    return Node("number", value=exact, step=step, significant=significant)


def name(label: str) -> Node:
    """Return a name."""
    return Node("name", label=label)


def call(function: str, *arguments: Node) -> Node:
    """Return a function of its arguments."""
    return Node("call", arguments, label=function)


def product(*factors: Node) -> Node:
    """Return a product, or the factor if there is only one. Products are flat, so that a long one is not deep."""
    return factors[0] if len(factors) == 1 else flat("*", *factors)


def flat(head: Head, first: Node, *others: Node) -> Node:
    """Return a node in which `first`, if it has the same head, is replaced by its own operands."""
    return Node(head, (*(first.parts if first.head == head else (first,)), *others))


def total(*terms: Node) -> Node:
    """Return a sum, or the term if there is only one."""
    return terms[0] if len(terms) == 1 else Node("+", terms)


def relation(sides: list[Node], signs: list[str]) -> Node:
    """Return a chain of relations; a descending one is turned round, so that `2>x` is `x<2`."""
    if set(signs) <= _ASCENDING.keys():
        sides, signs = sides[::-1], [_ASCENDING[sign] for sign in reversed(signs)]
    return Node("relation", tuple(sides), label=" ".join(signs))


def power(base: Node, exponent: Node) -> Node:
    """Return a power."""
    return Node("^", (base, exponent))


def negative(node: Node) -> Node:
    """Return the negative of a value."""
    if node.head == "number":
        return number(-node.value, node.step, node.significant)
    return product(number(-1), node)


def quotient(numerator: Node, denominator: Node) -> Node:
    """Return a quotient."""
    return product(numerator, power(denominator, number(-1)))


def replace_names(node: Node, values: Mapping[str, Node]) -> Node:
    """Return a tree in which names are replaced by values."""
    if node.head == "name":
        return values.get(node.label, node)
    return replace(node, parts=tuple(replace_names(part, values) for part in node.parts)) if node.parts else node


def has_name(node: Node) -> bool:
    """Return whether a name, of a variable or a constant, occurs in a tree."""
    return node.head == "name" or any(map(has_name, node.parts))


INFINITY = name("\\infty")
MINUS_INFINITY = negative(INFINITY)
