"""Comparison of two parsed answers by kind: values, lists, sets, tuples, intervals, vectors, equations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction

from lm_eval_pruned.grading.compare.evaluate import DIGITS, Numeric, evaluate_exactly, free_names, is_close
from lm_eval_pruned.grading.compare.expand import expand, is_label, solutions_as_tuples, split_components
from lm_eval_pruned.grading.compare.regions import same_region
from lm_eval_pruned.grading.compare.values import agree_at_points, compare_values
from lm_eval_pruned.grading.limits import MAX_UNORDERED_MEMBERS
from lm_eval_pruned.grading.read.tree import VALUES, Head, Node, negative, product, total

_REGIONS: frozenset[Head] = frozenset(
    ("name", "bracket", "set", "union", "intersection", "difference", "relation", "list", "and", "or")
)
# Relations that hold for the difference of both sides; ">" and ">=" are read as "<" and "<=".
_COMPARISONS = ("<", "<=", "=", "!=", "==")
_UNORDERED: frozenset[Head] = frozenset(("list", "set", "union", "intersection", "and", "or"))


def compare_answers(one: Node, other: Node) -> bool | None:
    r"""Return whether two answers are the same, or None if that could not be decided. Their order does not matter.

    Example:
        >>> from lm_eval_pruned.grading.read.parser import read
        >>> compare_answers(read(r"(x+1)^{2}"), read(r"x^{2}+2x+1")), compare_answers(read("(1, 2)"), read("(2, 1)"))
        (True, False)
        >>> compare_answers(read("x>2"), read(r"(2, \infty)")), compare_answers(read("2x+2y=6"), read("y=3-x"))
        (True, True)
    """
    sides = [set(node.parts) for node in (one, other) if node.label == "="]
    # An equation such as `1=1` says nothing about a variable.
    if len(sides) == 2 and len({len(side) == 1 and not any(map(free_names, side)) for side in sides}) == 2:
        return False
    return _compare(expand(one), expand(other))


def _compare(one: Node, other: Node) -> bool | None:
    if one.head in VALUES and other.head in VALUES:
        return compare_values(one, other)
    are_regions = one.head in _REGIONS and other.head in _REGIONS and not one.head == other.head in ("bracket", "set")
    if are_regions and same_region(one, other):
        return True
    if one.head == other.head == "relation":
        return _compare_relation(one, other)
    if one.head == other.head and one.label == other.label:
        if one.head == "ratio":
            return _compare_ratio(one.parts, other.parts)
        if one.head == "list" and _are_named(one) != _are_named(other):
            # Names say which value is which.
            return _compare_sequence(one.parts, other.parts)
        if one.head in _UNORDERED:
            return (
                _compare_members(_members(one), _members(other))
                or _compare_solutions(one, other)
                or _compare_solutions(other, one)
            )
        return _compare_sequence(one.parts, other.parts)
    verdict = _compare_kinds(one, other)
    return _compare_kinds(other, one) if verdict is False else verdict


def _compare_kinds(one: Node, other: Node) -> bool | None:
    """Compare two answers of different kinds that can mean the same, in this order."""
    match one.head, other.head:
        case "relation", "union" | "bracket" | "set" | "list" | "ratio" | "name" | "number" | "+" | "*" | "^" | "call":
            return _compare_named(one, other)
        case "list", "bracket" | "set" if (solutions := solutions_as_tuples(one)) is not None:
            return _compare_members(solutions, [other] if other.head == "bracket" else _members(other))
        case "list", "set" if not _are_named(one):
            return _compare_members(one.parts, _members(other))
        case "matrix", "bracket":
            return _compare_vector(one, other)
        case "bracket", _ if other.head in VALUES and one.label == "()":
            return _compare_components(one.parts, other)
        case "matrix", _ if other.head in VALUES and all(len(row.parts) == 1 for row in one.parts):
            return _compare_components([cell for row in one.parts for cell in row.parts], other)
        case "set", _ if len(one.parts) == 1 and other.head in (*VALUES, "bracket"):
            return _compare(one.parts[0], other)
        case "ratio", _ if len(one.parts) == 2 and (evaluate_exactly(other) or Fraction(1, 2)).denominator > 1:
            return _is_value(other) and compare_values(one.parts[0], product(other, one.parts[1]))
    return False


# Collections


def _compare_sequence(ones: Sequence[Node], others: Sequence[Node]) -> bool | None:
    if len(ones) != len(others):
        return False
    return _all_true(_compare(one, other) for one, other in zip(ones, others, strict=True))


def _compare_members(ones: Sequence[Node], others: Sequence[Node]) -> bool | None:
    """Match every member with one of the other side, in any order."""
    if len(ones) != len(others):
        return False
    mine, theirs = Counter(ones), Counter(others)
    unmatched, is_undecided = list((theirs - mine).elements()), False
    if len(unmatched) > MAX_UNORDERED_MEMBERS:
        return None
    for one in (mine - theirs).elements():
        verdicts = [_compare(one, other) for other in unmatched]
        if True in verdicts:
            del unmatched[verdicts.index(True)]
        elif None in verdicts:
            is_undecided = True
        else:
            return False
    return None if is_undecided else True


def _are_named(items: Node) -> bool:
    """Return whether members are values of different names, as in `x = 1, y = 2`."""
    named = [part.parts[0] for part in items.parts if part.head == "relation" and is_label(part.parts[0])]
    # Numbered names such as x_1, x_2 may be in any order.
    labels = {node.label.partition("_")[0] or node for node in named}
    return len(labels) == len(items.parts) > 1


def _members(node: Node) -> Sequence[Node]:
    """Return the members of a collection, those of a list as often as they occur, but equal tuples once."""
    if node.head != "set" and any(part.head != "bracket" for part in node.parts):
        return node.parts
    distinct: list[Node] = []
    parts = list(dict.fromkeys(node.parts))
    if len(parts) > MAX_UNORDERED_MEMBERS:
        return parts
    for part in parts:
        if not any(_compare(part, known) for known in distinct):
            distinct.append(part)
    return distinct


def _compare_vector(matrix: Node, bracket: Node) -> bool | None:
    rows = matrix.parts
    if all(part.head == "bracket" for part in bracket.parts):
        return _compare_sequence(rows, [Node("row", part.parts) for part in bracket.parts])
    is_vector = bracket.label in ("()", "[]") and (len(rows) == 1 or all(len(row.parts) == 1 for row in rows))
    return is_vector and _compare_sequence([cell for row in rows for cell in row.parts], bracket.parts)


def _compare_components(parts: Sequence[Node], value: Node) -> bool | None:
    """Compare a vector with a sum of unit vectors, or a tuple with a named point such as `P(3, 4)`."""
    if value.head == "call" and len(value.label) == 1 and value.label.isupper():
        return _compare_sequence(parts, value.parts)
    given = split_components(value, len(parts))
    return False if given is None else _compare_sequence(parts, given)


def _compare_solutions(named: Node, tuples: Node) -> bool:
    """Compare solutions whose values are named with tuples of values."""
    solutions = solutions_as_tuples(named) if named.head == "list" else None
    return solutions is not None and bool(_compare_members(solutions, _members(tuples)))


def _compare_ratio(ones: Sequence[Node], others: Sequence[Node]) -> bool | None:
    if len(ones) != len(others):
        return False
    if any(evaluate_exactly(member) == 0 for member in (*ones, *others)):
        # Times of day, 12:00 and 1:00: cross products with 0 are all equal.
        return _all_true(map(compare_values, ones, others))
    pairs = zip(ones[1:], others[1:], strict=True)
    return _all_true(compare_values(product(one, others[0]), product(other, ones[0])) for one, other in pairs)


def _is_value(*nodes: Node) -> bool:
    return all(node.head in VALUES for node in nodes)


def _all_true(verdicts: Iterator[bool | None]) -> bool | None:
    known = list(verdicts)
    return False if False in known else None if None in known else True


# Relations


def _compare_relation(one: Node, other: Node) -> bool | None:
    steps, others = _split_chain(one), _split_chain(other)
    if len(steps) != len(others):
        return False
    return _all_true(map(_compare_step, steps, others))


def _split_chain(relation: Node) -> list[Node]:
    """Split a chain of relations into the relations between neighbours."""
    sides, signs = relation.parts, relation.label.split()
    return [Node("relation", sides[index : index + 2], label=sign) for index, sign in enumerate(signs)]


def _compare_step(one: Node, other: Node) -> bool | None:
    """Compare equations up to a factor that is not zero, and inequalities up to a positive factor."""
    sign = one.label
    if sign != other.label:
        return False
    if sign not in _COMPARISONS or not _is_value(*one.parts, *other.parts):
        return _compare_sequence(one.parts, other.parts)
    left, right = _difference(one), _difference(other)
    verdict = _have_same_factor(left, right, sign)
    if verdict is False and sign in ("=", "!="):
        return _have_same_factor(_clear_denominators(left), _clear_denominators(right), sign)
    return verdict


def _have_same_factor(left: Node, right: Node, sign: str) -> bool | None:
    factors: list[Numeric] = []

    def has_same_factor(mine: Numeric, theirs: Numeric, *, digits: int) -> bool:
        if not theirs or not mine:
            return not mine and not theirs
        factor = mine / theirs
        factors.append(factor)
        return is_close(factor, factors[0], digits=min(digits, DIGITS)) and not (
            sign in ("<", "<=") and (factor.real <= 0 or abs(factor.imag) > abs(factor.real))
        )

    return agree_at_points(left, right, has_same_factor)


def _difference(relation: Node) -> Node:
    left, right = relation.parts
    return total(left, negative(right))


def _clear_denominators(node: Node) -> Node:
    """Multiply a sum by each of its different denominators."""
    return product(node, *dict.fromkeys(_denominators(node)))


def _denominators(node: Node) -> Iterator[Node]:
    if node.head in ("+", "*"):
        for part in node.parts:
            yield from _denominators(part)
    elif node.head == "^" and evaluate_exactly(node.parts[1]) == -1:
        yield node.parts[0]


def _compare_named(relation: Node, value: Node) -> bool | None:
    """Compare `x = 5` or `x in S` with what it says about the name, given without the name."""
    if set(relation.label.split()) != {"="} and relation.label != "in":
        return False
    left, right = relation.parts[0], relation.parts[-1]
    if is_label(left) and len(relation.parts) == 2 and not free_names(left) & free_names(right):
        return _compare(right, value)
    if relation.label != "in" and _is_value(value, *relation.parts) and free_names(value) and _compare(right, value):
        # An identity, such as 2x+x=3x, is the expression on both of its sides.
        return all(_compare(side, value) for side in relation.parts)
    return relation.label == "=" and right.head == "name" and _compare(left, value)
