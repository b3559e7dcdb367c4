"""Comparison of two LaTeX expressions that sympy evaluates: as our own expression trees, else by simplification.

It runs only inside a worker process (`worker_process.py`), because sympy may take unbounded time and memory.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import sympy

from lm_eval_pruned.grading.compare.compare import compare_answers
from lm_eval_pruned.grading.compare.evaluate import DIGITS
from lm_eval_pruned.grading.read.tokens import UnreadableError
from lm_eval_pruned.grading.read.tree import INFINITY, MINUS_INFINITY, Head, Node, call, name, number, power
from lm_eval_pruned.grading.symbolic.latex_parser import parse

INSTALL = "pip install latex2sympy2-extended 'antlr4-python3-runtime==4.13.2'"
SAME = "the same values, or the difference simplifies to zero"

_CONSTANTS = {
    sympy.pi: name("\\pi"), sympy.E: name("e"), sympy.I: name("i"), sympy.oo: INFINITY, -sympy.oo: MINUS_INFINITY,
}  # fmt: skip
_OPERATIONS: dict[type[sympy.Basic], Head] = {sympy.Add: "+", sympy.Mul: "*", sympy.Pow: "^"}
_RELATIONS = {sympy.Eq: "=", sympy.Ne: "!=", sympy.Lt: "<", sympy.Le: "<="}
_INEQUALITIES = (sympy.Lt, sympy.Le, sympy.Gt, sympy.Ge)
# Functions with another name in sympy than in our trees.
_FUNCTIONS = {
    "log": "ln", "asin": "arcsin", "acos": "arccos", "atan": "arctan", "acot": "arccot", "Abs": "abs",
    "ceiling": "ceil",
}  # fmt: skip


class Decision(NamedTuple):
    """Whether two expressions are equal, None if one cannot be parsed or evaluated, and why."""

    equal: bool | None
    reason: str


def decide(left: str, right: str) -> Decision:
    r"""Compare two LaTeX expressions with sympy; the order of the two never matters.

    Nothing is ever evaluated as Python, and sizes are bounded before anything is computed. Must run in a worker
    process, which bounds time and memory.

    Example:
        >>> decide(r"\sin^2 x + \cos^2 x", "1").equal, decide("(x+1)^2", "x^2+1").equal
        (True, False)
    """
    one, other = sorted((left, right))
    try:
        equal = _are_equal(parse(one), parse(other))
        return Decision(equal, SAME if equal else "different values")
    except UnreadableError as error:
        return Decision(None, str(error))
    except ImportError as error:
        return Decision(None, f"no LaTeX parser ({error}): {INSTALL}")
    except MemoryError:
        # It ends the process, whose limit would fail the next pair, too.
        raise
    # The parser and sympy raise any exception, even bare Exception; none of them decides about an answer.
    except Exception as error:
        return Decision(None, f"{type(error).__name__} in sympy or the LaTeX parser")


def _are_equal(one: sympy.Basic, other: sympy.Basic) -> bool:
    if any(side.has(sympy.Integral) for side in (one, other)):
        # Numerical integration guarantees no digits: agreement to so many is not a coincidence, a difference may be.
        if compare_answers(to_tree(_integrate(one)), to_tree(_integrate(other))):
            return True
        one, other = one.doit(), other.doit()
    equal = compare_answers(to_tree(one), to_tree(other))
    if equal is False and isinstance(one, _INEQUALITIES) and isinstance(other, _INEQUALITIES):
        return one.free_symbols == other.free_symbols and bool(one.as_set() == other.as_set())
    if equal is None and not (isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr)):
        raise UnreadableError("neither values nor relations that can be evaluated")
    return bool(sympy.simplify(one - other) == 0) if equal is None else equal


def _integrate(node: sympy.Basic) -> sympy.Basic:
    """Replace integrals by their values to more digits than are compared."""
    return node.xreplace({part: sympy.Rational(str(part.evalf(3 * DIGITS))) for part in node.atoms(sympy.Integral)})


def to_tree(node: sympy.Basic) -> Node:
    """Return a sympy expression, relation or matrix as a tree of our own; what we cannot evaluate is a function in it.

    Example:
        >>> to_tree(sympy.sympify("2 < x")).label, to_tree(sympy.sympify("zeta(3)")).label
        ('<', 'zeta')
    """
    if node in _CONSTANTS:
        return _CONSTANTS[node]
    if isinstance(node, sympy.Rational):
        return number(Fraction(node.p, node.q))
    if isinstance(node, sympy.Symbol):
        return name(node.name)
    if isinstance(node, sympy.MatrixBase):
        return Node("matrix", tuple(Node("row", tuple(map(to_tree, row))) for row in node.tolist()))
    if isinstance(node, sympy.Piecewise):
        # A formula with exceptions, such as the integral of x^n, where n is not -1, or a sum without a value elsewhere.
        formula, condition = next(branch for branch in node.args if not isinstance(branch[1], sympy.Eq))
        if condition is sympy.true or isinstance(condition, sympy.Ne) or node.args[-1][0].has(sympy.Sum):
            return to_tree(formula)
    if isinstance(node, (sympy.Gt, sympy.Ge)):
        node = node.reversed
    parts = tuple(map(to_tree, node.args))
    if node.func in _RELATIONS:
        return Node("relation", parts, label=_RELATIONS[node.func])
    if node.func == sympy.exp:
        return power(name("e"), *parts)
    if node.func in _OPERATIONS:
        return Node(_OPERATIONS[node.func], parts)
    label = node.func.__name__
    return call(_FUNCTIONS.get(label, label), *parts)
