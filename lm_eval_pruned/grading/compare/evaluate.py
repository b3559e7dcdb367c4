"""Evaluation of expression trees: exactly if they are rational, else numerically at given values of their variables."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from fractions import Fraction
from math import comb, factorial, gcd, lcm, prod
from typing import TYPE_CHECKING, Protocol

from lm_eval_pruned.grading.limits import MAX_EXACT_BITS, MAX_GROWING_ARGUMENT, MAX_NUMERIC_EXPONENT
from lm_eval_pruned.grading.read.tree import Node
from lm_eval_pruned.grading.vocabulary import CONSTANTS

if TYPE_CHECKING:
    from mpmath.ctx_mp import MPContext

# Decimal digits of a numerical evaluation, and how many of them may be lost to rounding.
DIGITS = 30
LOST_DIGITS = 8
# Smaller values are evaluated again with more digits, to tell them from zero.
_SMALL = 1e-15

# The names of our functions in mpmath.
_FUNCTIONS = {
    **{name: name for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "ln", "exp")},
    **{name: name for name in ("floor", "ceil", "factorial", "binomial")},
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "arccot": "acot",
    "log": "log10",
    "lg": "log10",
    "abs": "fabs",
}
_GROWING = ("factorial", "binomial", "exp", "sinh", "cosh")


# The values of variables at which expressions are compared, numerators over denominators. Neighbours are so different
# that agreement by chance is unlikely.
_NUMERATORS = (7, 29, 3, 61, 11, 43, 5, 97, 13, 151)
_DENOMINATORS = (5, 13, 7, 17, 19, 23, 31, 37, 41, 59)
POINTS = tuple(map(Fraction, _NUMERATORS, _DENOMINATORS))


class UndefinedError(ArithmeticError):
    """An expression that has no value, or none that may be computed within the limits."""


class Numeric(Protocol):
    """A real or complex number of mpmath."""

    real: float
    imag: float

    def __bool__(self) -> bool: ...
    def __abs__(self) -> float: ...
    def __sub__(self, other: Numeric) -> Numeric: ...
    def __truediv__(self, other: Numeric) -> Numeric: ...


def evaluate_exactly(node: Node) -> Fraction | None:
    r"""Return the value of an expression that contains rational numbers only, or None.

    Example:
        >>> from lm_eval_pruned.grading.read.parser import read
        >>> evaluate_exactly(read(r"2^{-3}+\frac{3}{8}")), evaluate_exactly(read(r"\sqrt{2}"))
        (Fraction(1, 2), None)
    """
    try:
        return _evaluate_exactly(node)
    except ArithmeticError:
        return None


def _evaluate_exactly(node: Node) -> Fraction | None:
    if node.head == "number":
        return node.value
    if node.head not in ("+", "*", "^", "call"):
        return None
    parts = [_evaluate_exactly(part) for part in node.parts]
    values = [part for part in parts if part is not None]
    if len(values) < len(parts) or not parts:
        return None
    match node.head:
        case "+":
            return _check_size(sum(values, Fraction(0)))
        case "*":
            return _check_size(prod(values, start=Fraction(1)))
        case "^":
            return _raise_power(*values)
    return _apply_to_rationals(node.label, values)


def _raise_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        return None
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * bits > MAX_EXACT_BITS:
        raise UndefinedError("too large")
    if not base and exponent <= 0:
        raise UndefinedError("a power of zero")
    return Fraction(base ** int(exponent))


def _apply_to_rationals(function: str, values: list[Fraction]) -> Fraction | None:
    """Compute the functions of whole numbers, and those that map rational numbers to rational numbers."""
    first = values[0]
    if function == "abs":
        return abs(first)
    if function in ("floor", "ceil"):
        return Fraction(
            first.numerator // first.denominator if function == "floor" else -(-first.numerator // first.denominator)
        )
    if function in ("max", "min"):
        return max(values) if function == "max" else min(values)
    if function == "C" and len(values) == 2:
        function = "binomial"
    if function not in ("factorial", "double factorial", "binomial", "gcd", "lcm") or any(
        value.denominator != 1 or value < 0 for value in values
    ):
        return None
    whole = [int(value) for value in values]
    if function in ("gcd", "lcm"):
        return _check_size(Fraction((gcd if function == "gcd" else lcm)(*whole)))
    bits = whole[0].bit_length() * (min(whole[1], abs(whole[0] - whole[1])) if function == "binomial" else whole[0])
    if bits > MAX_EXACT_BITS:
        raise UndefinedError("too large")
    match function:
        case "factorial":
            return Fraction(factorial(*whole))
        case "double factorial":
            return Fraction(prod(range(whole[0], 0, -2)))
    return Fraction(comb(*whole))


def _check_size(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_EXACT_BITS:
        raise UndefinedError("too large")
    return value


def free_names(node: Node) -> frozenset[str]:
    """Return the names in an expression that are variables."""
    if node.head == "name":
        return frozenset() if node.label in CONSTANTS else frozenset([node.label])
    return frozenset().union(*map(free_names, node.parts))


def evaluate_numerically(node: Node, point: Mapping[str, Fraction], *, digits: int = DIGITS) -> Numeric:
    """Evaluate an expression to `digits` decimal digits, with the variables at the values in `point`.

    Raises:
        UndefinedError: it has no value, is infinite, or is beyond the limits.
    """
    value = _evaluate_finite(node, point, digits)
    if 0 < abs(value) < _SMALL:
        # The residue of terms that cancel shrinks with more digits; a number that is merely small does not.
        finer = _evaluate_finite(node, point, 2 * digits)
        return finer if abs(finer) > _SMALL * abs(value) else finer - finer
    return value


def is_close(one: Numeric, other: Numeric, *, digits: int = DIGITS) -> bool:
    """Tell whether two values agree in all but the last `LOST_DIGITS` digits, relative to the larger of them."""
    return bool(abs(one - other) <= 10.0 ** (LOST_DIGITS - digits) * max(abs(one), abs(other)))


_LOCAL = threading.local()


def _context(digits: int) -> MPContext:
    """Return an mpmath context of this precision. Contexts are mutable, so every thread has its own."""
    contexts: dict[int, MPContext] = _LOCAL.__dict__.setdefault("contexts", {})
    if digits not in contexts:
        import mpmath

        contexts[digits] = mpmath.mp.clone()
        contexts[digits].dps = digits
    return contexts[digits]


def _evaluate_finite(node: Node, point: Mapping[str, Fraction], digits: int) -> Numeric:
    mp = _context(digits)
    try:
        value: Numeric = mp.mpc(_evaluate(mp, node, point))
    except (ArithmeticError, ValueError, TypeError, NotImplementedError) as error:
        raise UndefinedError(str(error)) from error
    if not mp.isfinite(value):
        raise UndefinedError("not finite")
    return value


def _evaluate(mp: MPContext, node: Node, point: Mapping[str, Fraction]) -> Numeric:
    value: Numeric
    match node.head:
        case "number":
            value = mp.mpf(node.value.numerator) / node.value.denominator
        case "name":
            at = point.get(node.label, Fraction(0))
            constants = {"\\pi": mp.mpf(mp.pi), "e": mp.mpf(mp.e), "i": mp.mpc(0, 1), "\\infty": mp.inf}
            value = constants[node.label] if node.label in constants else mp.mpf(at.numerator) / at.denominator
        case "+":
            value = mp.fsum(_evaluate(mp, part, point) for part in node.parts)
        case "*":
            value = mp.fprod(_evaluate(mp, part, point) for part in node.parts)
        case "^":
            base, exponent = (_evaluate(mp, part, point) for part in node.parts)
            if abs(exponent) > MAX_NUMERIC_EXPONENT:
                raise UndefinedError("too large")
            value = mp.power(base, exponent)
        case "call":
            value = _apply(mp, node.label, [_evaluate(mp, part, point) for part in node.parts])
        case _:
            raise UndefinedError(f"no value: {node.head}")
    return value


def _apply(mp: MPContext, function: str, arguments: list[Numeric]) -> Numeric:
    largest = MAX_GROWING_ARGUMENT if function in _GROWING else MAX_NUMERIC_EXPONENT**3
    if function not in (*_FUNCTIONS, "root") or any(abs(argument) > largest for argument in arguments):
        raise UndefinedError(f"no value: {function}")
    if function == "root":
        return _take_root(mp, *arguments)
    value: Numeric = getattr(mp, _FUNCTIONS[function])(*arguments)
    return value


def _take_root(mp: MPContext, base: Numeric, degree: Numeric) -> Numeric:
    """Return a root: for an odd degree the real one, as taught in schools, so that the third root of -8 is -2."""
    is_odd = not degree.imag and degree.real % 2 == 1
    if is_odd and not base.imag and base.real < 0:
        value: Numeric = -mp.power(mp.mpf(0) - base, mp.mpf(1) / degree)
    else:
        value = mp.power(base, mp.mpf(1) / degree)
    return value
