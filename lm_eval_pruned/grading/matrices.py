"""A matrix is read row by row, from the name of its environment to the same name."""

from __future__ import annotations

from collections.abc import Callable

from lm_eval_pruned.grading.tokens import Tokens, UnreadableError
from lm_eval_pruned.grading.tree import Node, call

_MATRICES = ("matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array", "vmatrix")


def read_matrix(tokens: Tokens, read_cell: Callable[[], Node]) -> Node:
    r"""Read what follows `\begin`, up to the end of that environment; of a `vmatrix`, the determinant.

    Raises:
        UnreadableError: it is no matrix.
    """
    kind = _environment(tokens)
    if kind not in _MATRICES:
        raise UnreadableError(f"environment {kind}")
    if kind == "array":
        while tokens.take() not in ("}", ""):
            pass
    rows: list[Node] = []
    while True:
        cells = [read_cell()]
        while tokens.accept("&"):
            cells.append(read_cell())
        rows.append(Node("row", tuple(cells)))
        if not tokens.accept("\\\\") or tokens.next == "\\end":
            break
    tokens.expect("\\end")
    if _environment(tokens) != kind:
        raise UnreadableError("another environment ends")
    matrix = Node("matrix", tuple(rows))
    return call("det", matrix) if kind == "vmatrix" else matrix


def _environment(tokens: Tokens) -> str:
    tokens.expect("{")
    word = tokens.take()
    tokens.expect("}")
    return word
