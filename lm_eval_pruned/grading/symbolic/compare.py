"""Comparison of two LaTeX expressions with sympy: at random points to 60 digits, else by simplification.

It runs only inside a worker process (`worker_process.py`), because sympy may take unbounded time and memory.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import sympy

from lm_eval_pruned.grading.read.tokens import UnreadableError
from lm_eval_pruned.grading.symbolic.latex_parser import parse

INSTALL = "pip install latex2sympy2-extended 'antlr4-python3-runtime==4.13.2'"
DIGITS = 60
SAME = f"the same values to {DIGITS} digits, or the difference simplifies to zero"
TOLERANCE = sympy.Rational(1, 10**50)
# An irrational value below this is the residue of terms that cancel.
RESIDUE = sympy.Rational(1, 10**100)
# Random points: wanted, and needed for a decision.
POINTS = 12
FEWEST_POINTS = 3
SEED = 20260101


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
        raise
    # The parser and sympy raise any exception, even bare Exception; none of them decides about an answer.
    except Exception as error:
        return Decision(None, f"{type(error).__name__} in sympy or the LaTeX parser")


def _are_equal(one: sympy.Basic, other: sympy.Basic) -> bool:
    if isinstance(one, sympy.Rel) and isinstance(other, sympy.Rel):
        return _are_equal_relations(one, other)
    if isinstance(one, sympy.MatrixBase) and isinstance(other, sympy.MatrixBase):
        return one.shape == other.shape and all(map(_are_equal, one.flat(), other.flat()))
    if not (isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr)):
        raise UnreadableError("different kinds")
    if any(side.has(sympy.Integral) for side in (one, other)) and not _agree(one, other):
        # Numerical integration guarantees no digits: agreement to so many is not a coincidence, a difference may be.
        one, other = one.doit(), other.doit()
    agree = one == other or _agree(one, other)
    return bool(sympy.simplify(one - other) == 0) if agree is None else agree


def _are_equal_relations(one: sympy.Rel, other: sympy.Rel) -> bool:
    """Compare equations up to a constant factor, and inequalities up to a positive one."""
    one, other = (side.reversed if isinstance(side, (sympy.Gt, sympy.Ge)) else side for side in (one, other))
    if type(one) is not type(other):
        return False
    samples = list(_samples(one.lhs - one.rhs, other.lhs - other.rhs))
    if len(samples) < FEWEST_POINTS or any(not left or not right for left, right in samples):
        raise UnreadableError("a relation that cannot be sampled")
    (above, below), *_ = samples
    same = all(_close(left * below, right * above) for left, right in samples)
    # The factor between two equations, or two inequations, may have either sign.
    return same and (isinstance(one, (sympy.Eq, sympy.Ne)) or bool(above / below > 0))


def _agree(one: sympy.Expr, other: sympy.Expr) -> bool | None:
    """Compare values at random points; return None if there are too few points."""
    samples = list(_samples(one, other))
    if any(not _close(left, right) for left, right in samples):
        return False
    return True if len(samples) >= (FEWEST_POINTS if one.free_symbols | other.free_symbols else 1) else None


def _samples(one: sympy.Expr, other: sympy.Expr) -> list[tuple[sympy.Expr, sympy.Expr]]:
    """Return values of both at the random points at which both are finite, real ones if there are any."""
    values = [tuple(_value(side, point) for side in (one, other)) for point in _points(one, other)]
    finite = [(left, right) for left, right in values if left is not None and right is not None]
    return [pair for pair in finite if all(value.is_real for value in pair)] or finite


def _points(one: sympy.Expr, other: sympy.Expr) -> Iterator[dict[sympy.Symbol, sympy.Rational]]:
    generator, pair = random.Random(SEED), sympy.Tuple(one, other)
    symbols = sorted(pair.free_symbols, key=str)
    # Symbols in factorials, binomials and exponents of negative numbers stand for integers.
    counted = list(pair.atoms(sympy.factorial, sympy.binomial))
    counted += [power.exp for power in pair.atoms(sympy.Pow) if power.base.is_negative]
    integers = {symbol for node in counted for symbol in node.free_symbols}
    needs_positive = any(power.base.free_symbols and not power.exp.is_integer for power in pair.atoms(sympy.Pow))
    signs = [1] if needs_positive or any(part.free_symbols for part in pair.atoms(sympy.log)) else [1, -1]
    for attempt in range(POINTS if symbols else 1):
        # Small, medium and large values, at some of which most functions are real.
        yield {
            symbol: sympy.Integer(attempt + index + 1)
            if symbol in integers
            else sympy.Rational(generator.randint(1, 997), generator.choice([1009, 337, 53, 32]))
            * generator.choice(signs)
            for index, symbol in enumerate(symbols)
        }


def _value(tree: sympy.Expr, point: dict[sympy.Symbol, sympy.Rational]) -> sympy.Expr | None:
    """Return the value at a point, exactly if it is rational; None if it has none."""
    value = tree.subs(point)
    if not value.is_Rational:
        value = value.evalf(DIGITS, maxn=4 * DIGITS, chop=RESIDUE)
    return value if value.is_number and value.is_finite else None


def _close(left: sympy.Expr, right: sympy.Expr) -> bool:
    """Compare rational numbers exactly, and others with a relative tolerance, so that a tiny number is not zero."""
    if left.is_Rational and right.is_Rational:
        return bool(left == right)
    return bool(abs(left - right) <= TOLERANCE * max(abs(left), abs(right)))
