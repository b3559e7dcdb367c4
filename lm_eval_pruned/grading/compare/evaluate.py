"""Evaluation of expression trees: exactly if they are rational, else numerically at given values of their variables."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from fractions import Fraction
from math import ceil, comb, factorial, floor, gcd, lcm, prod
from typing import TYPE_CHECKING, TypeAlias

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
_SAME_NAMES = "sin cos tan cot sec csc sinh cosh tanh csch sech coth ln exp floor ceil factorial binomial"
_FUNCTIONS = {name: name for name in _SAME_NAMES.split()} | {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot", "arcsec": "asec", "arccsc": "acsc",
    "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "log": "log10", "lg": "log10",
    "abs": "fabs",
}  # fmt: skip
_OF_RATIONALS: dict[str, Callable[..., Fraction | int]] = {
    "abs": abs, "floor": floor, "ceil": ceil, "max": max, "min": min,
}  # fmt: skip
_OF_WHOLE: dict[str, Callable[..., int]] = {
    "gcd": gcd, "lcm": lcm, "binomial": comb, "factorial": factorial,
    "double factorial": lambda value: prod(range(value, 0, -2)),
}  # fmt: skip
_GROWING = ("factorial", "binomial", "exp", "sinh", "cosh")

# The values of variables at which expressions are compared, numerators over denominators. Neighbours are so different
# that agreement by chance is unlikely.
_NUMERATORS = (7, 29, 3, 61, 11, 43, 5, 97, 13, 151)
_DENOMINATORS = (5, 13, 7, 17, 19, 23, 31, 37, 41, 59)
POINTS = tuple(map(Fraction, _NUMERATORS, _DENOMINATORS))


class UndefinedError(ArithmeticError):
    """An expression that has no value, or none that may be computed within the limits."""


# The numbers of mpmath, which has no types, have the operations of complex ones.
Numeric: TypeAlias = complex


def evaluate_exactly(node: Node) -> Fraction | None:
    r"""Return the value of an expression that is a rational number, or None.

    Example:
        >>> from lm_eval_pruned.grading.read.parser import read
        >>> evaluate_exactly(read(r"2^{-3}+\frac{3}{8}")), evaluate_exactly(read(r"\sqrt{2}"))
        (Fraction(1, 2), None)
    """
    if node.head == "number":
        return node.value
    try:
        value = None if free_names(node) else _evaluate(_context(DIGITS), node, {})
    except (ArithmeticError, ValueError, TypeError, NotImplementedError):
        return None
    return value if isinstance(value, Fraction) else None


def free_names(node: Node) -> frozenset[str]:
    """Return the names in an expression that are variables."""
    if node.head == "name":
        return frozenset() if node.label in CONSTANTS else frozenset([node.label])
    return frozenset().union(*map(free_names, node.parts))


def evaluate_numerically(node: Node, point: Mapping[str, Fraction], *, digits: int = DIGITS) -> Numeric:
    """Evaluate an expression to `digits` decimal digits, with the variables at the values in `point`.

    UndefinedError says that it has no value, is infinite, or is beyond the limits.
    """
    value = _evaluate_finite(node, point, digits)
    if 0 < abs(value) < _SMALL:
        # The residue of terms that cancel shrinks with more digits; a number that is merely small does not.
        finer = _evaluate_finite(node, point, 2 * digits)
        return finer if abs(finer) > _SMALL * abs(value) else finer - finer
    return value


def is_close(one: Numeric, other: Numeric, *, digits: int = DIGITS) -> bool:
    """Return whether two values agree in all but the last `LOST_DIGITS` digits, relative to the larger of them."""
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
        value: Numeric = mp.mpc(_convert(mp, _evaluate(mp, node, point)))
    except (ArithmeticError, ValueError, TypeError, NotImplementedError) as error:
        raise UndefinedError(str(error)) from error
    if not mp.isfinite(value):
        raise UndefinedError("not finite")
    return value


def _evaluate(mp: MPContext, node: Node, point: Mapping[str, Fraction]) -> Fraction | Numeric:
    """Evaluate exactly as long as all operands are rational and small enough, then with mpmath."""
    if node.head == "number":
        return node.value
    if node.head == "name":
        constants = {"\\pi": mp.mpf(mp.pi), "e": mp.mpf(mp.e), "i": mp.mpc(0, 1), "\\infty": mp.inf}
        return constants[node.label] if node.label in constants else point.get(node.label, Fraction(0))
    if node.head not in ("+", "*", "^", "call"):
        raise UndefinedError(f"no value: {node.head}")
    values = [_evaluate(mp, part, point) for part in node.parts]
    rationals = [value for value in values if isinstance(value, Fraction)]
    if len(rationals) == len(values) > 0:
        exact = _operate_exactly(node, rationals)
        if exact is not None and max(exact.numerator.bit_length(), exact.denominator.bit_length()) <= MAX_EXACT_BITS:
            return exact
    return _operate(mp, node, [_convert(mp, value) for value in values])


def _convert(mp: MPContext, value: Fraction | Numeric) -> Numeric:
    converted: Numeric = mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value
    return converted


def _operate_exactly(node: Node, values: list[Fraction]) -> Fraction | None:
    """Compute an operation on rational numbers, None if its value is not rational or may be too large."""
    match node.head:
        case "+":
            return sum(values[1:], values[0])
        case "*":
            return prod(values[1:], start=values[0])
        case "^":
            base, exponent = values
            if not base and exponent <= 0:
                raise UndefinedError("a power of zero")
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            is_small = exponent.denominator == 1 and abs(exponent) * bits <= MAX_EXACT_BITS
            return Fraction(base ** int(exponent)) if is_small else None
    function = "binomial" if node.label == "C" and len(values) == 2 else node.label
    if function in _OF_RATIONALS:
        return Fraction(_OF_RATIONALS[function](*values))
    if function not in _OF_WHOLE or any(value.denominator != 1 or value < 0 for value in values):
        return None
    whole = [int(value) for value in values]
    terms = min(whole[1], abs(whole[0] - whole[1])) if function == "binomial" else whole[0]
    is_small = function in ("gcd", "lcm") or whole[0].bit_length() * terms <= MAX_EXACT_BITS
    return Fraction(_OF_WHOLE[function](*whole)) if is_small else None


def _operate(mp: MPContext, node: Node, values: list[Numeric]) -> Numeric:
    value: Numeric
    match node.head:
        case "+":
            value = mp.fsum(values)
        case "*":
            value = mp.fprod(values)
        case "^":
            # The power of a tiny exponent is close to one, whatever its base.
            if values[1] and not MAX_NUMERIC_EXPONENT**-3 < abs(values[1]) <= MAX_NUMERIC_EXPONENT:
                raise UndefinedError("too large or too small an exponent")
            value = _raise(mp, values[0], values[1], evaluate_exactly(node.parts[1]))
        case _:
            largest = MAX_GROWING_ARGUMENT if node.label in _GROWING else MAX_NUMERIC_EXPONENT**3
            if node.label not in _FUNCTIONS or any(abs(argument) > largest for argument in values):
                raise UndefinedError(f"no value: {node.label}")
            value = getattr(mp, _FUNCTIONS[node.label])(*values)
    return value


def _raise(mp: MPContext, base: Numeric, exponent: Numeric, rational: Fraction | None) -> Numeric:
    """Return a power; a root of odd degree is the real one, as taught in schools: the third root of -8 is -2."""
    has_real_root = rational is not None and rational.denominator % 2 and not base.imag and base.real < 0
    value: Numeric = mp.power(mp.mpf(0) - base if has_real_root else base, exponent)
    return mp.mpf(0) - value if has_real_root and rational is not None and rational.numerator % 2 else value
