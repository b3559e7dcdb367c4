"""Rewriting before comparison: plus-minus and nested lists as a list, chains as their value, vectors as tuples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lm_eval_pruned.grading.compare.evaluate import free_names
from lm_eval_pruned.grading.compare.values import compare_values
from lm_eval_pruned.grading.read.parser import read
from lm_eval_pruned.grading.read.tree import VALUES, Node, name, number, product, replace_names
from lm_eval_pruned.grading.vocabulary import CONSTANTS

_TRANSPOSE = name("T")
_UNIT_VECTORS = ("\\hat{i}", "\\hat{j}", "\\hat{k}")
# A chain with one of these in its middle, as `y=4x=12`, does not say which value was asked for.
_UNKNOWNS = frozenset("xyz")


def expand(node: Node) -> Node:
    """Return a tree in which shorthand is written out.

    Plus-minus becomes a list, lists in lists become one, and chains of equalities become their value. The transpose of
    a tuple is the tuple.
    """
    if node.head == "list" or (node.head == "set" and _has_signs(node)):
        parts = (expand(part) for part in _split_exclusions(node.parts))
        return Node(
            node.head, tuple(member for part in parts for member in (part.parts if part.head == "list" else [part]))
        )
    if _has_signs(node):
        return Node("list", (_with_sign(node, 1), _with_sign(node, -1)))
    if node.head == "relation":
        return split_tuple_equation(node) or shorten_chain(node)
    is_transposed = node.head == "^" and node.parts[1] == _TRANSPOSE and node.parts[0].head == "bracket"
    return node.parts[0] if is_transposed else node


def _split_exclusions(parts: Sequence[Node]) -> Iterator[Node]:
    r"""Write `x \ne 2, 3` as `x \ne 2, x \ne 3`, and `(x, y) = (1, 2), (3, 4)` without its names."""
    first, *others = parts
    if others and first.label == "=" and {side.head for side in (*first.parts, *others)} == {"bracket"}:
        names = [part.label.lstrip("\\") for part in first.parts[0].parts]
        # Names in another order, (y, x), are needed.
        parts = (first.parts[1], *others) if names == sorted(names) else parts
    for part in parts:
        is_excluded = first.label == "!=" and part.head in VALUES
        yield Node("relation", (first.parts[0], part), label="!=") if is_excluded else part


def _has_signs(node: Node) -> bool:
    return node.head == "plus-minus" or any(map(_has_signs, node.parts))


def _with_sign(node: Node, sign: int) -> Node:
    if node.head == "plus-minus":
        inner = _with_sign(node.parts[0], sign)
        return product(number(sign if node.label == "\\pm" else -sign), inner)
    return replace(node, parts=tuple(_with_sign(part, sign) for part in node.parts))


def split_components(node: Node, size: int) -> list[Node] | None:
    r"""Return the `size` components of a sum of unit vectors, or None if a node is something else.

    Example:
        >>> from lm_eval_pruned.grading.compare.evaluate import evaluate_exactly
        >>> from lm_eval_pruned.grading.read.parser import read
        >>> list(map(evaluate_exactly, split_components(read(r"2\hat{i}-9\hat{k}"), 3)))
        [Fraction(2, 1), Fraction(0, 1), Fraction(-9, 1)]
    """
    terms = node.parts if node.head == "+" else (node,)
    units = _UNIT_VECTORS[:size]
    if not 2 <= size <= len(_UNIT_VECTORS) or any(len(free_names(term) & {*units}) != 1 for term in terms):
        return None
    return [replace_names(node, {other: number(other == unit) for other in units}) for unit in units]


def shorten_chain(relation: Node) -> Node:
    """Return the value of a chain of equal constants, or what the chain says about the name at its beginning.

    A chain of different constants such as `3=4` is returned unchanged: its end alone is not its value.

    Example:
        >>> from lm_eval_pruned.grading.read.parser import read
        >>> shorten_chain(read("x=2+3=5")) == read("x=2+3"), shorten_chain(read("3=4")).head
        (True, 'relation')
        >>> shorten_chain(read("4=2^{2}"))
        Node(head='number', parts=(), label='', value=Fraction(4, 1), step=None, significant=1)
    """
    if set(relation.label.split()) != {"="}:
        return relation
    first, *middle, last = relation.parts
    constants = [side for side in relation.parts if side.head in VALUES and not free_names(side) and not is_label(side)]
    if last not in constants or not all(compare_values(constants[0], side) for side in constants[1:]):
        return relation
    if len(constants) == len(relation.parts):
        return first
    are_names = first.head in ("+", "*") and all(part.head == "name" for part in first.parts)
    if are_names and len(constants) == len(relation.parts) - 1 >= 2:
        # A calculation such as a+b=15+11=26 gives a value, where a+b=26 is an equation.
        return constants[0]
    if not is_label(first) or any(
        (side.head == "name" and side.label[-1:] != ")") or free_names(side) & _UNKNOWNS for side in middle
    ):
        return relation
    return Node("relation", (first, constants[0]), label="=")


def is_label(node: Node) -> bool:
    """Return whether an expression only names a value, as x, f(1)+f(2), AB/CD and V_1:V_2 do.

    A sum or product of other variables is not a name: `a+b=15` is an equation.
    """
    match node.head:
        case "name":
            return node.label not in CONSTANTS
        case "call":
            return len(node.label) == 1
        case "^":
            return node.parts[1] == number(-1) and is_label(node.parts[0])
        case "+":
            return all(part.head == "call" or part.label[-1:] == ")" for part in node.parts)
        case "*" | "ratio":
            return all(map(is_label, node.parts)) and all(label[0].isupper() for label in free_names(node))
    return False


def is_constant_chain(form: str) -> bool:
    """Return whether a normal form such as `2+3=5` has no variables and no other relation."""
    tree = read(form)
    return tree is not None and tree.head == "relation" and not any(map(free_names, tree.parts))


def split_tuple_equation(relation: Node) -> Node | None:
    """Write `(x, y) = (1, 2)` as `x = 1, y = 2`; return None for anything but an equation of tuples."""
    left, right = relation.parts[0], relation.parts[-1]
    are_tuples = left.head == right.head == "bracket" and len(left.parts) == len(right.parts)
    if relation.label != "=" or not are_tuples or not all(map(is_label, left.parts)):
        return None
    pairs = zip(left.parts, right.parts, strict=True)
    return Node("list", tuple(Node("relation", pair, label="=") for pair in pairs))


def solutions_as_tuples(named: Node) -> list[Node] | None:
    """Return the solutions in a list of named values, each as a tuple in the alphabetical order of the names, or None.

    Every solution has a value for each name; the order of the names does not matter.

    Example:
        >>> from lm_eval_pruned.grading.read.parser import read
        >>> solutions_as_tuples(read("y=2, x=1, x=3, y=4")) == list(read("(1, 2), (3, 4)").parts)
        True
        >>> solutions_as_tuples(read("x=1, x=2")), solutions_as_tuples(read("x=1, y=2, x=3"))
        (None, None)
    """
    parts = named.parts
    if any(part.label != "=" or len(part.parts) != 2 or part.parts[0].head != "name" for part in parts):
        return None
    # Numbered names such as x_1, x_2 are solutions of one variable, in any order.
    size = len({part.parts[0].label.partition("_")[0] for part in parts})
    if size < 2 or len(parts) % size:
        return None
    solutions = [sorted(parts[start : start + size], key=_sort_key) for start in range(0, len(parts), size)]
    if any(len({_sort_key(part) for part in solution}) < size for solution in solutions):
        return None
    return [Node("bracket", tuple(part.parts[1] for part in solution), label="()") for solution in solutions]


def _sort_key(relation: Node) -> str:
    r"""Return the name in an equation without its backslash, so that `\theta` is sorted after r."""
    return relation.parts[0].label.lstrip("\\")
