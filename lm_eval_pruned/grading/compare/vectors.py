r"""Vectors written as a row, as a column, or as a sum of unit vectors: `(2, -9)`, `2\hat{i}-9\hat{j}`."""

from __future__ import annotations

from lm_eval_pruned.grading.compare.evaluate import free_names
from lm_eval_pruned.grading.read.tree import Node, name, number, replace_names

_UNITS = ("\\hat{i}", "\\hat{j}", "\\hat{k}")
_TRANSPOSE = name("T")


def transpose(node: Node) -> Node | None:
    """Return the transpose of a matrix or tuple that has `T` as its exponent, else None; a tuple stays the same."""
    if node.head != "^" or node.parts[1] != _TRANSPOSE:
        return None
    base = node.parts[0]
    if base.head == "matrix" and len({len(row.parts) for row in base.parts}) == 1:
        columns = zip(*(row.parts for row in base.parts), strict=True)
        return Node("matrix", tuple(Node("row", column) for column in columns))
    return base if base.head == "bracket" else None


def split_components(node: Node, size: int) -> list[Node] | None:
    r"""Return the `size` components of a sum of unit vectors, or None if a node is something else.

    Example:
        >>> from lm_eval_pruned.grading.compare.evaluate import evaluate_exactly
        >>> from lm_eval_pruned.grading.read.parser import read
        >>> list(map(evaluate_exactly, split_components(read(r"2\hat{i}-9\hat{k}"), 3)))
        [Fraction(2, 1), Fraction(0, 1), Fraction(-9, 1)]
    """
    terms = node.parts if node.head == "+" else (node,)
    if not 2 <= size <= len(_UNITS) or any(len(free_names(term) & {*_UNITS[:size]}) != 1 for term in terms):
        return None
    return [replace_names(node, {other: number(other == unit) for other in _UNITS}) for unit in _UNITS[:size]]
