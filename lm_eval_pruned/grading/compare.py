"""Two answers are compared by what they are: values, collections of them, intervals, equations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise

from lm_eval_pruned.grading.evaluate import CONSTANTS, DIGITS, Numeric, UndefinedError, exact, is_close, names, numeric
from lm_eval_pruned.grading.number import MIN_SIGNIFICANT_DIGITS
from lm_eval_pruned.grading.tree import VALUES, Head, Node, name, negative, number, product, total

# Where expressions with names are compared; neighbours are unlike enough not to agree by chance.
_ABOVE = (7, 29, 3, 61, 11, 43, 5, 97, 13, 151)
_BELOW = (5, 13, 7, 17, 19, 23, 31, 37, 41, 59)
POINTS = tuple(map(Fraction, _ABOVE, _BELOW))
ENOUGH = 3
# Each member may have to be compared with each of the other side.
MAX_MEMBERS = 40

_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!=", "==": "=="}
_CLOSED = ("<=", ">=")
_BOUNDS = ("<", ">", "!=", *_CLOSED)
_REALS = name("\\mathbbR")
_INFINITY = name("\\infty")
_MINUS_INFINITY = negative(_INFINITY)
_UNORDERED: frozenset[Head] = frozenset(("list", "set", "union", "intersection"))


def same(one: Node, other: Node) -> bool | None:
    r"""Tell whether two answers are the same, or None where that could not be decided.

    Example:
        >>> from lm_eval_pruned.grading.read import read
        >>> same(read(r"(x+1)^{2}"), read(r"x^{2}+2x+1")), same(read("(1, 2)"), read("(2, 1)"))
        (True, False)
        >>> same(read("x>2"), read(r"(2, \infty)")), same(read("2x+2y=6"), read("y=3-x"))
        (True, True)
    """
    return _same(_plain(one), _plain(other))


def _plain(node: Node) -> Node:
    """Write plus-minus out as a list, and lists and unions within their like as one."""
    if node.head == "list":
        members = [member for part in node.parts for member in _members(_plain(part), "list")]
        return Node("list", tuple(members))
    if _has_signs(node):
        return Node("list", (_with_sign(node, 1), _with_sign(node, -1)))
    if node.head == "difference" and node.parts[0] == _REALS:
        return _reals_without(node.parts[1:]) or node
    if node.head == "union":
        return Node("union", tuple(part for member in node.parts for part in _members(_plain(member), "union")))
    return node


def _members(node: Node, head: Head) -> Sequence[Node]:
    return node.parts if node.head == head else (node,)


def _same(one: Node, other: Node) -> bool | None:
    if one.head in VALUES and other.head in VALUES:
        return _same_value(one, other)
    if one.head == other.head == "relation":
        return _same_relation(one, other) or _same_intervals(one, other)
    if one.head == other.head and one.label == other.label:
        if one.head == "ratio":
            return _same_ratio(one.parts, other.parts)
        if one.head == "list" and _are_named(one) != _are_named(other):
            # Names say which is which.
            return _same_sequence(one.parts, other.parts)
        if one.head in _UNORDERED:
            return _same_members(_distinct(one), _distinct(other))
        return _same_sequence(one.parts, other.parts)
    verdict = _same_kinds(one, other)
    return _same_kinds(other, one) if verdict is False else verdict


def _same_kinds(one: Node, other: Node) -> bool | None:
    """Compare two answers of different kinds that can mean the same, given in this order."""
    match one.head, other.head:
        case "relation", "union" | "bracket" | "set" | "list" | "name" | "number" | "+" | "*" | "^" | "call":
            return _same_named(one, other)
        case "list", "set" if not _are_named(one):
            return _same_members(one.parts, _distinct(other))
        case "list", "union":
            return _same_members([_interval(part) or part for part in one.parts], other.parts)
        case "matrix", "bracket":
            return _same_vector(one, other)
        case "set", "name" if not one.parts:
            return other.label == "\\emptyset"
        case "set", _ if len(one.parts) == 1 and other.head in VALUES:
            return _same(one.parts[0], other)
        case "bracket", "name" if other == _REALS:
            return one == _between(_MINUS_INFINITY, _INFINITY)
        case "ratio", _ if other.head in VALUES:
            return _same_quotient(one, other)
    return False


# Values


def _same_value(one: Node, other: Node) -> bool | None:
    left, right = exact(one), exact(other)
    if left is not None and right is not None:
        return left == right or _rounds(one, right, other) or _rounds(other, left, one)
    if _is_infinite(one) or _is_infinite(other):
        return _is_infinite(one) and one == other
    return _rounds_numerically(one, other) or _agree(one, other, is_close)


def _rounds(decimal: Node, value: Fraction, origin: Node) -> bool:
    """Tell whether a decimal is a value rounded to the digits it shows; whole numbers and decimals never round."""
    if decimal.step is None or decimal.significant < MIN_SIGNIFICANT_DIGITS or origin.step is not None:
        return False
    return value.denominator != 1 and 2 * abs(value - decimal.value) <= decimal.step


def _rounds_numerically(one: Node, other: Node) -> bool:
    decimal, value = (one, other) if one.head == "number" else (other, one)
    if decimal.step is None or decimal.significant < MIN_SIGNIFICANT_DIGITS or names(value):
        return False
    try:
        exactly = numeric(value, {})
    except UndefinedError:
        return False
    return bool(2 * abs(exactly - numeric(decimal, {})) <= float(decimal.step))


def _is_infinite(node: Node) -> bool:
    return node in (_INFINITY, _MINUS_INFINITY)


def _agree(one: Node, other: Node, test: Callable[..., bool]) -> bool | None:
    """Test two expressions at several points; a single one at which they differ settles it.

    Once they agree everywhere they must do so to twice the digits, too.
    """
    passed = 0
    for point in _points(one, other):
        try:
            for digits in (DIGITS,) if passed else (DIGITS, 2 * DIGITS):
                if not test(numeric(one, point, digits=digits), numeric(other, point, digits=digits), digits=digits):
                    return False
        except UndefinedError:
            continue
        passed += 1
        if passed == ENOUGH or not point:
            return True
    return None


def _points(one: Node, other: Node) -> Iterator[Mapping[str, Fraction]]:
    """Yield points, every other one with signs; radicals and logarithms are compared where they are real."""
    variables = sorted(names(one) | names(other))
    has_signs = not (_has_radical(one) or _has_radical(other))
    for shift in range(len(POINTS)):
        yield {
            variable: (-1 if has_signs and (shift + place) % 2 else 1)
            * (POINTS[(shift + 3 * place) % len(POINTS)] + place)
            for place, variable in enumerate(variables)
        }


def _has_radical(node: Node) -> bool:
    """Tell whether a root, a logarithm or a power of unknown exponent is taken somewhere."""
    is_root = node.head == "^" and (exact(node.parts[1]) or Fraction(1, 2)).denominator != 1
    return is_root or (node.head == "call" and node.label in ("ln", "log", "lg")) or any(map(_has_radical, node.parts))


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
    if len(left) > MAX_MEMBERS:
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
    if len(parts) > MAX_MEMBERS:
        return parts
    for part in parts:
        if not any(_same(part, known) for known in kept):
            kept.append(part)
    return kept


def _same_vector(one: Node, other: Node) -> bool | None:
    matrix, bracket = (one, other) if one.head == "matrix" else (other, one)
    rows = matrix.parts
    if bracket.label != "()" or not (len(rows) == 1 or all(len(row.parts) == 1 for row in rows)):
        return False
    return _same_sequence([cell for row in rows for cell in row.parts], bracket.parts)


def _same_ratio(ones: Sequence[Node], others: Sequence[Node]) -> bool | None:
    if len(ones) != len(others):
        return False
    return _all(
        _same_value(product(one, others[0]), product(other, ones[0]))
        for one, other in zip(ones[1:], others[1:], strict=True)
        if _is_value(one, other)
    )


def _same_quotient(ratio: Node, value: Node) -> bool | None:
    if len(ratio.parts) != 2 or not _is_value(*ratio.parts):
        return False
    return _same_value(ratio.parts[0], product(value, ratio.parts[1]))


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
    label = _FLIPPED.get(relation.label, relation.label)
    return Node("relation", relation.parts[::-1] if relation.label in _FLIPPED else relation.parts, label=label)


def _same_step(one: Node, other: Node) -> bool | None:
    """Compare equations up to a factor that is not zero, and inequalities up to one that is positive."""
    if not (_is_value(*one.parts) and _is_value(*other.parts)):
        return one.label == other.label and _same_sequence(one.parts, other.parts)
    sign = one.label
    if sign not in _FLIPPED or other.label not in (sign, _FLIPPED[sign]):
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

    return _agree(left, right, same_factor)


def _difference(relation: Node) -> Node:
    left, right = relation.parts
    return total(left, negative(right))


def _same_named(relation: Node, value: Node) -> bool | None:
    """Compare `x = 5`, `x in S` or `x > 2` with what it says about the name, given alone."""
    if (interval := _interval(relation)) is not None:
        return _same(interval, value)
    if relation.label not in ("=", "in"):
        return False
    left, right = relation.parts
    if left.head == "name" and left.label not in CONSTANTS:
        return _same(right, value)
    return _same(left, value) if right.head == "name" and relation.label == "=" else False


def _same_intervals(one: Node, other: Node) -> bool | None:
    left, right = _interval(one), _interval(other)
    return _same(left, right) if left and right else False


def _interval(relation: Node) -> Node | None:
    """Return the interval of a relation that bounds one variable by constants, or None."""
    sides, signs = relation.parts, relation.label.split()
    if relation.label == "in" and sides[0].head == "name":
        return sides[1]
    if any(sign not in _BOUNDS for sign in signs) or not _is_value(*sides):
        return None
    places = [place for place, side in enumerate(sides) if side.head == "name" and side.label not in CONSTANTS]
    if len(places) != 1 or any(names(side) for place, side in enumerate(sides) if place != places[0]):
        return None
    if len(sides) == 2:
        return _half_line(signs[0] if places[0] == 0 else _FLIPPED[signs[0]], sides[1 - places[0]])
    if len(sides) == 3 and places == [1] and "!=" not in signs and signs[0][0] == signs[1][0]:
        ends, bounds = (sides[::2], signs) if signs[0][0] == "<" else (sides[::-2], signs[::-1])
        return _between(*ends, low="[" if bounds[0] in _CLOSED else "(", high="]" if bounds[1] in _CLOSED else ")")
    return None


def _half_line(sign: str, bound: Node) -> Node:
    """Return where a variable is that stands in this relation to a bound."""
    if sign == "!=":
        return Node("union", (_between(_MINUS_INFINITY, bound), _between(bound, _INFINITY)))
    if sign[0] == "<":
        return _between(_MINUS_INFINITY, bound, high="]" if sign in _CLOSED else ")")
    return _between(bound, _INFINITY, low="[" if sign in _CLOSED else "(")


def _reals_without(sets: Sequence[Node]) -> Node | None:
    """Return the intervals that are left of the real line without some rational numbers."""
    points = [(exact(point), point) for part in sets for point in part.parts if part.head == "set"]
    if not points or any(value is None for value, _ in points) or any(part.head != "set" for part in sets):
        return None
    ends = [_MINUS_INFINITY, *(point for _, point in sorted(points, key=lambda pair: pair[0] or 0)), _INFINITY]
    return Node("union", tuple(_between(start, end) for start, end in pairwise(ends)))


def _between(start: Node, end: Node, *, low: str = "(", high: str = ")") -> Node:
    return Node("bracket", (start, end), label=low + high)


# Plus-minus


def _has_signs(node: Node) -> bool:
    return node.head == "plus-minus" or any(map(_has_signs, node.parts))


def _with_sign(node: Node, sign: int) -> Node:
    if node.head == "plus-minus":
        inner = _with_sign(node.parts[0], sign)
        return product(number(sign if node.label == "\\pm" else -sign), inner)
    return Node(
        node.head,
        tuple(_with_sign(part, sign) for part in node.parts),
        node.label,
        node.value,
        node.step,
        node.significant,
    )
