"""Comparison of two LaTeX expressions with sympy: numerically at random points, else by simplification.

It runs only inside a worker process (`worker_process.py`), because sympy may take unbounded time and memory.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import sympy

from lm_eval_pruned.grading.read.tokens import UnreadableError
from lm_eval_pruned.grading.symbolic.latex_parser import Collection, Parsed, can_be_integrated_numerically, parse

INSTALL = "pip install latex2sympy2-extended 'antlr4-python3-runtime==4.13.2'"
# Digits of the first evaluation, and of a second one if the first finds no difference.
DIGITS = 30
MANY_DIGITS = 60
TOLERANCE = sympy.Rational(1, 10**25)
STRICT_TOLERANCE = sympy.Rational(1, 10**50)
# Numerical integration and extrapolation guarantee no digits: a smaller difference decides nothing.
UNSURE = sympy.Rational(1, 10**6)
# Random points: wanted, needed for a decision, and tried at most.
POINTS = 8
FEWEST_POINTS = 3
ATTEMPTS = 24
SEED = 20260101


class Decision(NamedTuple):
    """Whether two expressions are equal, None if undecided, and why."""

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
        return _compare(parse(one), parse(other))
    except UnreadableError as error:
        return Decision(None, str(error))
    except ImportError as error:
        return Decision(None, f"no LaTeX parser ({error}): {INSTALL}")
    except MemoryError:
        raise
    # The parser and sympy raise any exception, even bare Exception; none of them decides about an answer.
    except Exception as error:
        return Decision(None, f"{type(error).__name__} in sympy or the LaTeX parser")


def _compare(one: Parsed, other: Parsed) -> Decision:
    if isinstance(one, Collection) and isinstance(other, Collection):
        return _compare_collections(one, other)
    if isinstance(one, sympy.Rel) and isinstance(other, sympy.Rel):
        return _compare_relations(one, other)
    if any(isinstance(side, (sympy.MatrixBase, sympy.MatrixExpr)) for side in (one, other)):
        if not (isinstance(one, sympy.MatrixBase) and isinstance(other, sympy.MatrixBase)):
            return Decision(None, "a matrix, and an expression or a matrix with variables")
        if one.shape != other.shape:
            return Decision(False, "different shapes")
        return _all_equal(map(_compare, one.flat(), other.flat()))
    if isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr):
        return _compare_expressions(one, other)
    return Decision(None, "different kinds")


def _compare_collections(one: Collection, other: Collection) -> Decision:
    if one.brackets != other.brackets:
        return Decision(False if one.brackets and other.brackets else None, "different brackets")
    if len(one.members) != len(other.members):
        return Decision(False, "different numbers of members")
    if one.brackets:
        return _all_equal(map(_compare, one.members, other.members))
    return _all_equal(_match_members(one.members, other.members))


def _match_members(ones: tuple[Parsed, ...], others: tuple[Parsed, ...]) -> Iterator[Decision]:
    """Match each member with an equal one of the other side; since equality is transitive, the first one will do."""
    remaining = list(others)
    for one in ones:
        decisions = [_compare(one, other) for other in remaining]
        found = next((index for index, decision in enumerate(decisions) if decision.equal), None)
        if found is None:
            undecided = [decision for decision in decisions if decision.equal is None]
            yield undecided[0] if undecided else Decision(False, "a member without its equal")
            return
        del remaining[found]
        yield Decision(True, "the same members")


def _all_equal(decisions: Iterator[Decision]) -> Decision:
    result = Decision(True, "the same members")
    for decision in decisions:
        if decision.equal is False:
            return decision
        if decision.equal is None:
            result = decision
    return result


def _compare_relations(one: sympy.Rel, other: sympy.Rel) -> Decision:
    """Compare equations up to a constant factor, and inequalities up to a positive one."""
    one, other = (side.reversed if isinstance(side, (sympy.Gt, sympy.Ge)) else side for side in (one, other))
    if type(one) is not type(other):
        return Decision(False, "different relations")
    factor = _constant_factor(one.lhs - one.rhs, other.lhs - other.rhs)
    if factor is None:
        return Decision(None, "a relation that cannot be sampled")
    # The factor between two equations, or two inequations, may have either sign.
    equal = factor != 0 and (isinstance(one, (sympy.Eq, sympy.Ne)) or bool(factor > 0))
    return Decision(equal, "relations that differ by a factor" if equal else "different relations")


def _constant_factor(one: sympy.Expr, other: sympy.Expr) -> sympy.Expr | None:
    """Return the number by which `one` is a multiple of `other`: 0 if it is not a multiple, None if that is unknown."""
    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    left, right = (side.as_poly(*symbols) if symbols else None for side in (one, other))
    if left and right and all(polynomial.domain.is_ZZ or polynomial.domain.is_QQ for polynomial in (left, right)):
        return left.LC() / right.LC() if left.monic() == right.monic() else sympy.Integer(0)
    samples = list(_samples(one, other, DIGITS))
    if len(samples) < FEWEST_POINTS or any(not left or not right for left, right in samples):
        return None
    ratios = [left / right for left, right in samples]
    same = all(ratio.is_real and _close(ratio, ratios[0], TOLERANCE) for ratio in ratios)
    return ratios[0] if same else sympy.Integer(0)


def _compare_expressions(one: sympy.Basic, other: sympy.Basic) -> Decision:
    if any(can_be_integrated_numerically(side) for side in (one, other)):
        # Agreement to so many digits is not a coincidence of numerical integration; a difference may be.
        if _agree_to_many_digits(one, other):
            return Decision(True, f"the same values to {MANY_DIGITS} digits")
        one, other = one.doit(), other.doit()
    if one == other:
        return Decision(True, "the same expression")
    if one.is_infinite or other.is_infinite:
        return Decision(False, "infinite on one side or of the other sign")
    # Samples cannot tell 2^1000 from 2^1000 + 1.
    difference = one - other
    if difference.is_Rational:
        return Decision(bool(difference == 0), "the difference is a number")
    return _decide_by_samples(one, other) or _decide_by_simplifying(one, other)


def _decide_by_samples(one: sympy.Expr, other: sympy.Expr) -> Decision | None:
    """Compare values at random points; return None if there are too few points."""
    samples = list(_samples(one, other, DIGITS))
    if any(not _close(left, right, TOLERANCE) for left, right in samples):
        inexact = any(side.has(sympy.Integral, sympy.Sum, sympy.Product) for side in (one, other))
        if inexact and all(_close(left, right, UNSURE) for left, right in samples):
            return Decision(None, "numerically close, without a closed form")
        return Decision(False, "different values")
    if len(samples) < (FEWEST_POINTS if one.free_symbols | other.free_symbols else 1):
        return None
    agree = _agree_to_many_digits(one, other)
    if agree is None:
        return None
    return Decision(agree, f"{'the same' if agree else 'different'} values to {MANY_DIGITS} digits")


def _agree_to_many_digits(one: sympy.Expr, other: sympy.Expr) -> bool | None:
    samples = list(_samples(one, other, MANY_DIGITS))
    return None if not samples else all(_close(left, right, STRICT_TOLERANCE) for left, right in samples)


def _decide_by_simplifying(one: sympy.Basic, other: sympy.Basic) -> Decision:
    difference = sympy.simplify(one - other)
    if difference == 0:
        return Decision(True, "the difference simplifies to zero")
    return Decision(False if difference.is_nonzero else None, "the difference does not simplify to zero")


def _samples(one: sympy.Basic, other: sympy.Basic, digits: int) -> Iterator[tuple[sympy.Expr, sympy.Expr]]:
    """Yield values of both at the random points at which both are finite, real ones if there are any."""
    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    complex_values, count = [], 0
    for point in _points(symbols, sympy.Tuple(one, other)):
        left, right = _value(one, point, digits), _value(other, point, digits)
        if left is None or right is None:
            continue
        if left.is_real and right.is_real:
            yield left, right
            count += 1
        else:
            complex_values.append((left, right))
        if count == POINTS:
            return
    if not count:
        yield from complex_values[:POINTS]


def _points(symbols: list[sympy.Symbol], pair: sympy.Tuple) -> Iterator[dict[sympy.Symbol, sympy.Rational]]:
    generator = random.Random(SEED)
    whole, positive = _integer_symbols(pair), _needs_positive(pair)
    # Each integer is drawn once: eight even numbers would make (-1)^n equal to 1.
    integers = {symbol: generator.sample(range(1, ATTEMPTS + 1), ATTEMPTS) for symbol in symbols if symbol in whole}
    for attempt in range(ATTEMPTS if symbols else 1):
        yield {
            symbol: sympy.Integer(integers[symbol][attempt]) if symbol in whole else _draw_value(generator, positive)
            for symbol in symbols
        }


def _draw_value(generator: random.Random, positive: bool) -> sympy.Rational:
    # Small, medium and large values, at some of which most functions are real; all are below 32, as the bound on bits
    # in `latex_parser` assumes.
    value = sympy.Rational(generator.randint(1, 997), generator.choice([1009, 337, 53, 32]))
    return value if positive else value * generator.choice([1, -1])


def _integer_symbols(tree: sympy.Basic) -> set[sympy.Basic]:
    """Return the symbols that stand for integers: in factorials, binomials and exponents of negative numbers."""
    nodes = list(tree.atoms(sympy.factorial, sympy.binomial))
    nodes += [power.exp for power in tree.atoms(sympy.Pow) if power.base.is_negative]
    return {symbol for node in nodes for symbol in node.free_symbols}


def _needs_positive(tree: sympy.Basic) -> bool:
    roots = any(power.base.free_symbols and not power.exp.is_integer for power in tree.atoms(sympy.Pow))
    return roots or any(logarithm.free_symbols for logarithm in tree.atoms(sympy.log))


def _value(tree: sympy.Basic, point: dict[sympy.Basic, sympy.Rational], digits: int) -> sympy.Expr | None:
    value = tree.evalf(digits, subs=point, maxn=4 * digits)
    if not value.is_number or not value.is_finite:
        return None
    real, imaginary = (_round_to_zero(part, digits) for part in value.as_real_imag())
    if real is None or imaginary is None:
        return None
    return real if abs(imaginary) <= abs(real) * TOLERANCE else real + imaginary * sympy.I


def _round_to_zero(part: sympy.Expr, digits: int) -> sympy.Expr | None:
    """Return a real or imaginary part: zero if all its digits cancelled, None if too many did."""
    if not isinstance(part, sympy.Number):
        return None
    if not isinstance(part, sympy.Float) or part._prec >= 3 * digits:
        return part
    return sympy.Integer(0) if part._prec < 8 else None


def _close(left: sympy.Expr, right: sympy.Expr, tolerance: sympy.Rational) -> bool:
    """Compare with a relative tolerance, so that a tiny number is not zero."""
    return bool(abs(left - right) <= tolerance * max(abs(left), abs(right)))
