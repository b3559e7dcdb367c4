"""Two expressions are equal if they agree at random points to many digits; what cannot be sampled is simplified.

This runs inside a worker process (`worker.py`) and nowhere else: sympy can take any time and any memory.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import sympy

from lm_eval_pruned.grading.read.tokens import UnreadableError
from lm_eval_pruned.grading.symbolic.latex_parser import Group, Parsed, can_be_integrated_numerically, parse

INSTALL = "pip install latex2sympy2-extended 'antlr4-python3-runtime==4.13.2'"
DIGITS = 30
MANY_DIGITS = 60
TOLERANCE = sympy.Rational(1, 10**25)
STRICT_TOLERANCE = sympy.Rational(1, 10**50)
# Quadrature and extrapolation promise no digits: a difference below this decides nothing.
UNSURE = sympy.Rational(1, 10**6)
POINTS = 8
FEWEST_POINTS = 3
ATTEMPTS = 24
SEED = 20260101


class Decision(NamedTuple):
    """Whether two expressions are equal (None: undecided) and why."""

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
    # Parser and sympy raise whatever they like, bare Exceptions included; none of it decides an answer.
    except Exception as error:
        return Decision(None, f"{type(error).__name__} in sympy or the LaTeX parser")


def _compare(one: Parsed, other: Parsed) -> Decision:
    if isinstance(one, Group) and isinstance(other, Group):
        return _compare_groups(one, other)
    if isinstance(one, Group) or isinstance(other, Group):
        return Decision(None, "an expression against a set, tuple, relation or matrix")
    return _compare_expressions(one, other)


def _compare_groups(one: Group, other: Group) -> Decision:
    if one.kind != other.kind:
        families = {one.kind.split()[0], other.kind.split()[0]}
        comparable = families in ({"brackets"}, {"matrix"}, {"relation"})
        return Decision(False if comparable else None, "different brackets, shapes or kinds")
    if len(one.members) != len(other.members):
        return Decision(False, "different numbers of members")
    if one.kind.startswith("relation") and len(one.members) == 2:
        return _compare_relations(one, other)
    if one.ordered:
        return _all(_compare(left, right) for left, right in zip(one.members, other.members, strict=True))
    return _all(_matches(one.members, other.members))


def _matches(ones: tuple[Parsed, ...], others: tuple[Parsed, ...]) -> Iterator[Decision]:
    """Give each member of one its equal among the others; equality being transitive, the first will do."""
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


def _all(decisions: Iterator[Decision]) -> Decision:
    result = Decision(True, "the same members")
    for decision in decisions:
        if decision.equal is False:
            return decision
        if decision.equal is None:
            result = decision
    return result


def _compare_relations(one: Group, other: Group) -> Decision:
    """Two equations are equal if one is the other times a number; inequalities, if that number is positive."""
    sides = [member for member in (*one.members, *other.members) if not isinstance(member, Group)]
    if len(sides) < 4:
        return _all(_compare(left, right) for left, right in zip(one.members, other.members, strict=True))
    factor = _factor(sides[0] - sides[1], sides[2] - sides[3])
    if factor is None:
        return Decision(None, "a relation that cannot be sampled")
    # The sign of an equation or of an inequation means nothing.
    equal = factor != 0 and (one.kind in {"relation =", "relation \\ne"} or bool(factor > 0))
    return Decision(equal, "relations that differ by a factor" if equal else "different relations")


def _factor(one: sympy.Expr, other: sympy.Expr) -> sympy.Expr | None:
    """Return the number by which `one` is a multiple of `other`, 0 if it is none, None if nobody knows."""
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
        # Agreement to so many digits is no accident of quadrature; disagreement may be one.
        if _agree(one, other):
            return Decision(True, f"the same values to {MANY_DIGITS} digits")
        one, other = one.doit(), other.doit()
    if one == other:
        return Decision(True, "the same expression")
    if one.is_infinite or other.is_infinite:
        return Decision(False, "infinite on one side or of the other sign")
    # Digits cannot tell 2^1000 from 2^1000 + 1.
    difference = one - other
    if difference.is_Rational:
        return Decision(bool(difference == 0), "the difference is a number")
    return _sampled(one, other) or _simplified(one, other)


def _sampled(one: sympy.Expr, other: sympy.Expr) -> Decision | None:
    """Compare values at random points; None where there are too few."""
    samples = list(_samples(one, other, DIGITS))
    if any(not _close(left, right, TOLERANCE) for left, right in samples):
        inexact = any(side.has(sympy.Integral, sympy.Sum, sympy.Product) for side in (one, other))
        if inexact and all(_close(left, right, UNSURE) for left, right in samples):
            return Decision(None, "numerically close, without a closed form")
        return Decision(False, "different values")
    if len(samples) < (FEWEST_POINTS if one.free_symbols | other.free_symbols else 1):
        return None
    agree = _agree(one, other)
    if agree is None:
        return None
    return Decision(agree, f"{'the same' if agree else 'different'} values to {MANY_DIGITS} digits")


def _agree(one: sympy.Expr, other: sympy.Expr) -> bool | None:
    samples = list(_samples(one, other, MANY_DIGITS))
    return None if not samples else all(_close(left, right, STRICT_TOLERANCE) for left, right in samples)


def _simplified(one: sympy.Basic, other: sympy.Basic) -> Decision:
    difference = sympy.simplify(one - other)
    if difference == 0:
        return Decision(True, "the difference simplifies to zero")
    return Decision(False if difference.is_nonzero else None, "the difference does not simplify to zero")


def _samples(one: sympy.Basic, other: sympy.Basic, digits: int) -> Iterator[tuple[sympy.Expr, sympy.Expr]]:
    """Yield the values of both at the same random points where both are finite and, if they can be, real."""
    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    complex_ones, count = [], 0
    for point in _points(symbols, sympy.Tuple(one, other)):
        left, right = _value(one, point, digits), _value(other, point, digits)
        if left is None or right is None:
            continue
        if left.is_real and right.is_real:
            yield left, right
            count += 1
        else:
            complex_ones.append((left, right))
        if count == POINTS:
            return
    if not count:
        yield from complex_ones[:POINTS]


def _points(symbols: list[sympy.Symbol], pair: sympy.Tuple) -> Iterator[dict[sympy.Symbol, sympy.Rational]]:
    generator = random.Random(SEED)
    whole, positive = _whole(pair), _needs_positive(pair)
    # Each integer once: eight even numbers would make (-1)^n equal to 1.
    integers = {symbol: generator.sample(range(1, ATTEMPTS + 1), ATTEMPTS) for symbol in symbols if symbol in whole}
    for attempt in range(ATTEMPTS if symbols else 1):
        yield {
            symbol: sympy.Integer(integers[symbol][attempt]) if symbol in whole else _draw(generator, positive)
            for symbol in symbols
        }


def _draw(generator: random.Random, positive: bool) -> sympy.Rational:
    # Small, middling and large ones, all below 32 as `_bits` believes: somewhere most functions are real.
    value = sympy.Rational(generator.randint(1, 997), generator.choice([1009, 337, 53, 32]))
    return value if positive else value * generator.choice([1, -1])


def _whole(tree: sympy.Basic) -> set[sympy.Basic]:
    """Find the symbols that stand for integers: in factorials, binomials and exponents of negative numbers."""
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
    real, imaginary = (_part(part, digits) for part in value.as_real_imag())
    if real is None or imaginary is None:
        return None
    return real if abs(imaginary) <= abs(real) * TOLERANCE else real + imaginary * sympy.I


def _part(part: sympy.Expr, digits: int) -> sympy.Expr | None:
    """Return a part of a value, zero where all its digits cancelled, None where too many did."""
    if not isinstance(part, sympy.Number):
        return None
    if not isinstance(part, sympy.Float) or part._prec >= 3 * digits:
        return part
    return sympy.Integer(0) if part._prec < 8 else None


def _close(left: sympy.Expr, right: sympy.Expr, tolerance: sympy.Rational) -> bool:
    """Compare relatively: a tiny number is not zero."""
    return bool(abs(left - right) <= tolerance * max(abs(left), abs(right)))
