"""Two answers are compared by what they are: values, collections of them, intervals, equations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from lm_eval_pruned.grading.compare.evaluate import DIGITS, Numeric, is_close
from lm_eval_pruned.grading.compare.expand import as_tuples, expand
from lm_eval_pruned.grading.compare.intervals import REALS, between, bounded
from lm_eval_pruned.grading.compare.values import agree, same_value
from lm_eval_pruned.grading.compare.vectors import components
from lm_eval_pruned.grading.limits import MAX_UNORDERED_MEMBERS
from lm_eval_pruned.grading.read.tree import (
    FLIPPED,
    INFINITY,
    MINUS_INFINITY,
    VALUES,
    Head,
    Node,
    negative,
    product,
    total,
)
from lm_eval_pruned.grading.vocabulary import CONSTANTS

_UNORDERED: frozenset[Head] = frozenset(("list", "set", "union", "intersection", "and", "or"))


def same(one: Node, other: Node) -> bool | None:
    r"""Tell whether two answers are the same, or None where that could not be decided.

    Example:
        >>> from lm_eval_pruned.grading.read.parser import read
        >>> same(read(r"(x+1)^{2}"), read(r"x^{2}+2x+1")), same(read("(1, 2)"), read("(2, 1)"))
        (True, False)
        >>> same(read("x>2"), read(r"(2, \infty)")), same(read("2x+2y=6"), read("y=3-x"))
        (True, True)
    """
    return _same(expand(one), expand(other))


def _same(one: Node, other: Node) -> bool | None:
    if one.head in VALUES and other.head in VALUES:
        return same_value(one, other)
    if one.head == other.head == "relation":
        return _same_relation(one, other) or _same_intervals(one, other)
    if one.head == other.head and one.label == other.label:
        if one.head == "ratio":
            return _same_ratio(one.parts, other.parts)
        if one.head == "list" and _are_named(one) != _are_named(other):
            # Names say which is which.
            return _same_sequence(one.parts, other.parts) or _same_solutions(one, other) or _same_solutions(other, one)
        if one.head in _UNORDERED:
            return (
                _same_members(_distinct(one), _distinct(other))
                or _same_solutions(one, other)
                or _same_solutions(other, one)
            )
        return _same_sequence(one.parts, other.parts)
    verdict = _same_kinds(one, other)
    return _same_kinds(other, one) if verdict is False else verdict


def _same_kinds(one: Node, other: Node) -> bool | None:
    """Compare two answers of different kinds that can mean the same, given in this order."""
    match one.head, other.head:
        case "relation", "union" | "bracket" | "set" | "list" | "name" | "number" | "+" | "*" | "^" | "call":
            return _same_named(one, other)
        case "list", "bracket" | "set" if (solutions := as_tuples(one)) is not None:
            return _same_members(solutions, [other] if other.head == "bracket" else _distinct(other))
        case "list", "set" if not _are_named(one):
            return _same_members(one.parts, _distinct(other))
        case "list", "and" | "or":
            # Which of the two a comma means is not said.
            return _same_members(one.parts, other.parts)
        case "list", "union":
            return _same_members([_region(part) for part in one.parts], other.parts)
        case "matrix", "bracket":
            return _same_vector(one, other)
        case "bracket", "name" if other == REALS:
            return one == between(MINUS_INFINITY, INFINITY)
        case "bracket", _ if other.head in VALUES and one.label == "()":
            return _same_components(one.parts, other)
        case "matrix", _ if other.head in VALUES and all(len(row.parts) == 1 for row in one.parts):
            return _same_components([cell for row in one.parts for cell in row.parts], other)
        case "set", "name" if not one.parts:
            return other.label == "\\emptyset"
        case "set", _ if len(one.parts) == 1 and other.head in VALUES:
            return _same(one.parts[0], other)
        case "ratio", _ if other.head in VALUES:
            return _same_quotient(one, other)
    return False


# Collections


def _same_sequence(ones: Sequence[Node], others: Sequence[Node]) -> bool | None:
    if len(ones) != len(others):
        return False
    return _all(_same(one, other) for one, other in zip(ones, others, strict=True))


def _same_members(ones: Sequence[Node], others: Sequence[Node]) -> bool | None:
    """Pair every member with one of the other side that is the same; members are compared in any order."""
    if len(ones) != len(others):
        return False
    mine, theirs = Counter(ones), Counter(others)
    left, undecided = list((theirs - mine).elements()), False
    if len(left) > MAX_UNORDERED_MEMBERS:
        return None
    for one in (mine - theirs).elements():
        verdicts = [_same(one, other) for other in left]
        if True in verdicts:
            del left[verdicts.index(True)]
        elif None in verdicts:
            undecided = True
        else:
            return False
    return None if undecided else True


def _are_named(items: Node) -> bool:
    """Tell whether members are values of different names, as in `x = 1, y = 2`."""
    named = [part.parts[0].label for part in items.parts if part.head == "relation" and part.parts[0].head == "name"]
    # Numbered names of one kind are numbered in any order.
    labels = {label.partition("_")[0] for label in named}
    return len(labels) == len(items.parts) > 1


def _distinct(node: Node) -> Sequence[Node]:
    """Return the members of a set, each once; a list keeps what it repeats."""
    if node.head != "set":
        return node.parts
    kept: list[Node] = []
    parts = list(dict.fromkeys(node.parts))
    if len(parts) > MAX_UNORDERED_MEMBERS:
        return parts
    for part in parts:
        if not any(_same(part, known) for known in kept):
            kept.append(part)
    return kept


def _same_vector(one: Node, other: Node) -> bool | None:
    matrix, bracket = (one, other) if one.head == "matrix" else (other, one)
    rows = matrix.parts
    if all(part.head == "bracket" for part in bracket.parts):
        return _same_sequence(
            [Node("bracket", row.parts) for row in rows], [Node("bracket", part.parts) for part in bracket.parts]
        )
    if bracket.label != "()" or not (len(rows) == 1 or all(len(row.parts) == 1 for row in rows)):
        return False
    return _same_sequence([cell for row in rows for cell in row.parts], bracket.parts)


def _same_components(parts: Sequence[Node], value: Node) -> bool | None:
    """Compare a vector with a sum of unit vectors, or a tuple with the point of a name: `P(3, 4)`."""
    if value.head == "call" and len(value.label) == 1 and value.label.isupper():
        return _same_sequence(parts, value.parts)
    given = components(value, len(parts))
    return False if given is None else _same_sequence(parts, given)


def _same_solutions(named: Node, tuples: Node) -> bool | None:
    """Compare solutions that name their values with tuples of values."""
    if any(part.head != "bracket" for part in tuples.parts):
        return False
    solutions = as_tuples(named) if named.head == "list" else None
    return False if solutions is None else _same_members(solutions, _distinct(tuples))


def _same_ratio(ones: Sequence[Node], others: Sequence[Node]) -> bool | None:
    if len(ones) != len(others):
        return False
    return _all(
        same_value(product(one, others[0]), product(other, ones[0]))
        for one, other in zip(ones[1:], others[1:], strict=True)
        if _is_value(one, other)
    )


def _same_quotient(ratio: Node, value: Node) -> bool | None:
    if len(ratio.parts) != 2 or not _is_value(*ratio.parts):
        return False
    return same_value(ratio.parts[0], product(value, ratio.parts[1]))


def _is_value(*nodes: Node) -> bool:
    return all(node.head in VALUES for node in nodes)


def _all(verdicts: Iterator[bool | None]) -> bool | None:
    known = list(verdicts)
    return False if False in known else None if None in known else True


# Relations


def _same_relation(one: Node, other: Node) -> bool | None:
    steps, others = _steps(one), _steps(other)
    if len(steps) != len(others):
        return False
    if len(steps) > 1:
        forward = _all(_same_step(step, peer) for step, peer in zip(steps, others, strict=True))
        return forward or _all(
            _same_step(step, _turned(peer)) for step, peer in zip(steps, reversed(others), strict=True)
        )
    return _same_step(steps[0], others[0])


def _steps(relation: Node) -> list[Node]:
    """Take a chain apart into the relations between neighbours."""
    sides, signs = relation.parts, relation.label.split()
    return [Node("relation", sides[place : place + 2], label=sign) for place, sign in enumerate(signs)]


def _turned(relation: Node) -> Node:
    label = FLIPPED.get(relation.label, relation.label)
    return Node("relation", relation.parts[::-1] if relation.label in FLIPPED else relation.parts, label=label)


def _same_step(one: Node, other: Node) -> bool | None:
    """Compare equations up to a factor that is not zero, and inequalities up to one that is positive."""
    if not (_is_value(*one.parts) and _is_value(*other.parts)):
        return one.label == other.label and _same_sequence(one.parts, other.parts)
    sign = one.label
    if sign not in FLIPPED or other.label not in (sign, FLIPPED[sign]):
        return one.label == other.label and _same_sequence(one.parts, other.parts)
    left, right = _difference(one), _difference(other if other.label == sign else _turned(other))
    factors: list[Numeric] = []

    def same_factor(mine: Numeric, theirs: Numeric, *, digits: int) -> bool:
        if not theirs or not mine:
            return not mine and not theirs
        factor = mine / theirs
        factors.append(factor)
        is_ordered = sign not in ("=", "!=", "==")
        return is_close(factor, factors[0], digits=min(digits, DIGITS)) and not (
            is_ordered and (factor.real <= 0 or abs(factor.imag) > abs(factor.real))
        )

    return agree(left, right, same_factor)


def _difference(relation: Node) -> Node:
    left, right = relation.parts
    return total(left, negative(right))


def _same_named(relation: Node, value: Node) -> bool | None:
    """Compare `x = 5`, `x in S` or `x > 2` with what it says about the name, given alone."""
    if (bound := bounded(relation)) is not None:
        return _same(bound.region, value)
    if relation.label not in ("=", "in"):
        return False
    left, right = relation.parts
    if left.head == "name" and left.label not in CONSTANTS:
        return _same(right, value)
    return _same(left, value) if right.head == "name" and relation.label == "=" else False


def _same_intervals(one: Node, other: Node) -> bool | None:
    left, right = bounded(one), bounded(other)
    return _same(left.region, right.region) if left and right and left.variable == right.variable else False


def _region(part: Node) -> Node:
    bound = bounded(part)
    return bound.region if bound else part
