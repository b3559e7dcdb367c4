"""Parser from LaTeX to sympy: splits lists and tuples itself, bounds all sizes, and leaves the rest to latex2sympy2.

It runs only inside a worker process (`worker_process.py`).
"""

from __future__ import annotations

import io
import math
import re
from contextlib import redirect_stdout
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate
from typing import NamedTuple, TypeAlias

import sympy
from sympy.core.parameters import evaluate

from lm_eval_pruned.grading.limits import (
    MAX_SYMPY_BITS,
    MAX_SYMPY_CHARACTERS,
    MAX_SYMPY_DEPTH,
    MAX_SYMPY_DIGITS,
    MAX_SYMPY_FACTORIAL,
    MAX_SYMPY_FACTORS,
    MAX_SYMPY_MEMBERS,
)
from lm_eval_pruned.grading.normalize.latex import normalize_latex
from lm_eval_pruned.grading.normalize.unicode import normalize_characters
from lm_eval_pruned.grading.read.tokens import UnreadableError

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|.", re.DOTALL)
_OPENING = {"(", "[", "{", "\\{", "\\lfloor", "\\lceil", "\\begin"}
_CLOSING = {")", "]", "}", "\\}", "\\rfloor", "\\rceil", "\\end"}
_NOT_SMOOTH = (sympy.Abs, sympy.floor, sympy.ceiling, sympy.Max, sympy.Min)
_FUNCTIONS = "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp"
_COMMANDS = {
    f"\\{name}"
    for name in (
        f"{_FUNCTIONS} frac sqrt cdot div pi infty binom int sum prod lim to rightarrow max min circ lfloor rfloor "
        "lceil rceil alpha beta delta epsilon varepsilon theta lambda mu nu xi rho sigma tau phi varphi chi psi omega "
        "zeta eta kappa le ge ne begin end det gcd Delta Theta Lambda Sigma Phi Psi Omega"
    ).split()
}
_BARE_FUNCTION = re.compile(rf"(?<![\\A-Za-z])({_FUNCTIONS.replace(' ', '|')}|pi)(?![A-Za-z])")
_MIXED = re.compile(r"(?<![0-9.}^_])([0-9]+)(\\frac\{[0-9]+\}\{[0-9]+\})")
_ENVIRONMENT = re.compile(r"\{[pb]matrix\}")
_IMPLICIT_PRODUCT = re.compile(r"(?<=[0-9)])(?=\()")
# Input that latex2sympy2 drops (bases, primes), reads as a product of letters (words) or can read in two ways (1/2x).
_REFUSED = re.compile(
    r"[0-9]\}?_|['%$#@\"`~?;:\x00-\x1f\x7f-\uffff]|(?<![\\A-Za-z])[A-Za-z]{4,}|/[0-9]+(?:[A-Za-z(]|\\(?!\\))|\^\^|!="
    r"|(?<![\\A-Za-z])[A-Za-z][0-9]|(?:(?<![A-Za-z])[A-Za-z]|[0-9)])\^\{[^{}]*\}[0-9]"
)


class Collection(NamedTuple):
    """A set or a list without brackets, whose `brackets` are braces or none, a tuple or an interval."""

    brackets: str
    members: tuple[Parsed, ...]


Parsed: TypeAlias = "Collection | sympy.Basic | sympy.MatrixBase"


def parse(text: str) -> Parsed:
    """Parse LaTeX: take lists, sets and tuples apart, and evaluate all else, if its size is bounded.

    Raises:
        UnreadableError: it is not mathematics, can be read in more than one way, or is too large to be evaluated.
    """
    if len(text) > MAX_SYMPY_CHARACTERS:
        raise UnreadableError(f"longer than {MAX_SYMPY_CHARACTERS} characters")
    if re.search(rf"[0-9]{{{MAX_SYMPY_DIGITS + 1}}}", text):
        raise UnreadableError(f"more than {MAX_SYMPY_DIGITS} digits")
    if re.search(r"\\text|\\mathrm\{\w{2}|(?<![0-9_^])[0-9]+\s+[0-9]", text):
        raise UnreadableError("words or spaced numbers")
    tokens = _TOKEN.findall(normalize_latex(normalize_characters(text)))
    depth = deepest = 0
    for token in tokens:
        depth += (token in _OPENING) - (token in _CLOSING)
        deepest = max(deepest, depth)
    if depth or deepest > MAX_SYMPY_DEPTH:
        raise UnreadableError(f"unbalanced, or nested deeper than {MAX_SYMPY_DEPTH}")
    return _read(tokens)


def _read(tokens: list[str]) -> Parsed:
    text = "".join(tokens).strip(" ")
    parts = _split_at_commas(tokens)
    if len(parts) > 1:
        return _collect("", parts)
    if text.startswith("\\{") or (text and _closes_at_end(tokens)):
        brackets, parts = tokens[0] + tokens[-1], _split_at_commas(tokens[1:-1])
        if brackets == "\\{\\}" and _closes_at_end(tokens):
            return _collect("", parts)
        if len(parts) > 1 and brackets in ("()", "[]", "(]", "[)"):
            return _collect(brackets, parts)
    if "," in tokens:
        raise UnreadableError("a tuple within an expression")
    return _read_expression(text)


def _collect(brackets: str, parts: list[list[str]]) -> Collection:
    if len(parts) > MAX_SYMPY_MEMBERS:
        raise UnreadableError(f"more than {MAX_SYMPY_MEMBERS} members")
    return Collection(brackets, tuple(_read(part) for part in parts))


def _depths(tokens: list[str]) -> list[int]:
    return list(accumulate((token in _OPENING) - (token in _CLOSING) for token in tokens))


def _closes_at_end(tokens: list[str]) -> bool:
    """Tell whether the first token is a bracket that the last one closes."""
    return tokens[0] in _OPENING and _depths(tokens).index(0) == len(tokens) - 1


def _split_at_commas(tokens: list[str]) -> list[list[str]]:
    """Split at commas outside all brackets."""
    parts: list[list[str]] = [[]]
    for token, depth in zip(tokens, _depths(tokens), strict=True):
        if token == "," and not depth:
            parts.append([])
        elif token != " " or parts[-1]:
            parts[-1].append(token)
    return parts


def _read_expression(text: str) -> sympy.Basic | sympy.MatrixBase:
    text = _BARE_FUNCTION.sub(r"\\\1 ", text)
    text = _IMPLICIT_PRODUCT.sub(r"\\cdot", _MIXED.sub(r"(\1+\2)", text))
    unknown = [token for token in _TOKEN.findall(text) if token[0] == "\\" and token not in (*_COMMANDS, "\\\\")]
    if not text or unknown or _REFUSED.search(_ENVIRONMENT.sub("", text)):
        raise UnreadableError("not an expression that the LaTeX parser reads in one way only")
    # Without evaluation: the parser would otherwise compute binomials and compare towers of powers while it reads.
    with evaluate(False):
        tree = _parse_latex(text)
        tree = tree.xreplace({number: _to_rational(number) for number in tree.atoms(sympy.Float)})
    _bound_bits(tree)
    if isinstance(tree, sympy.Rel):
        return tree.func(*map(_evaluate, tree.args), evaluate=False)
    return _evaluate(tree)


def _parse_latex(text: str) -> sympy.Basic | sympy.MatrixBase:
    """Turn LaTeX into a sympy tree with the parser that is installed."""
    if find_spec("latex2sympy2_extended") is None:
        with redirect_stdout(io.StringIO()):  # It prints every tree.
            tree = import_module("latex2sympy2").latex2sympy(text)
    else:
        parser = import_module("latex2sympy2_extended.latex2sympy2")
        config = parser.ConversionConfig(lowercase_symbols=False)
        tree = parser.latex2sympy(
            text, is_real=True, convert_degrees=True, normalization_config=None, conversion_config=config
        )
    if isinstance(tree, sympy.MatrixBase):
        return tree.as_immutable()
    if not isinstance(tree, (sympy.Expr, sympy.Rel)):
        raise UnreadableError("not an expression, equation or inequality")
    return tree


def _to_rational(number: sympy.Float) -> sympy.Rational:
    fraction = Fraction(str(number))
    return sympy.Rational(fraction.numerator, fraction.denominator)


def _bound_bits(node: sympy.Basic) -> float:
    """Return an upper bound for the bits of the numbers in a tree; raise UnreadableError if it is beyond the limit."""
    if isinstance(node, sympy.Rational):
        bits = float(abs(node.p).bit_length() - 1 + node.q.bit_length())
    elif not node.args:
        bits = 5.0
    else:
        bits = _bound_bits_of_operation(node, [_bound_bits(argument) for argument in node.args])
    if bits > MAX_SYMPY_BITS:
        raise UnreadableError("too large a number")
    return max(bits, 1.0)


def _bound_bits_of_operation(node: sympy.Basic, bits: list[float]) -> float:
    if isinstance(node, sympy.Pow):
        return float(bits[0] * _bound_magnitude(node.args[1], bits[1]))
    if isinstance(node, (sympy.exp, sympy.sinh, sympy.cosh, sympy.tanh)):
        return float(2 * _bound_magnitude(node.args[0], bits[0]))
    if isinstance(node, (sympy.factorial, sympy.binomial)):
        bound = _bound_magnitude(node.args[0], bits[0])
        if bound > MAX_SYMPY_FACTORIAL:
            raise UnreadableError(f"a factorial or binomial of more than {MAX_SYMPY_FACTORIAL}")
        return float(bound * math.log2(bound + 2))
    if isinstance(node, sympy.Product) and _bound_magnitude(node.args[1].args[-1], bits[1]) > MAX_SYMPY_FACTORS:
        raise UnreadableError(f"a product of more than {MAX_SYMPY_FACTORS} factors")
    if isinstance(node, sympy.Add):
        return max(bits) + math.log2(len(bits))
    return sum(bits)


def _bound_magnitude(node: sympy.Basic, bits: float) -> float:
    """Return an upper bound for the magnitude of a number with this many bits."""
    if isinstance(node, sympy.Rational) and bits <= 64:
        return float(max(1, math.ceil(abs(Fraction(node.p, node.q)))))
    return float(2.0 ** min(bits, 64))


def _evaluate(tree: sympy.Basic) -> sympy.Basic | sympy.MatrixBase:
    value = tree.doit(integrals=not can_be_integrated_numerically(tree))
    if tree.atoms(sympy.MatrixBase):
        value = value.replace(_is_power_of_matrix, lambda power: power.base**power.exp).doit()
    value = value.xreplace({symbol: sympy.I for symbol in value.free_symbols if symbol.name == "i"})
    if not value.has(sympy.I):
        value = value.replace(_is_odd_root_of_negative, lambda root: (-1) ** root.exp.p * (-root.base) ** root.exp)
    if value.has(sympy.nan, sympy.zoo):
        raise UnreadableError("no finite value")
    return value


def can_be_integrated_numerically(tree: sympy.Expr) -> bool:
    """Tell whether all integrals in a tree are of smooth functions between numbers.

    Numerical integration is faster than a closed form.
    """
    integrals = tree.atoms(sympy.Integral)
    limits = [limit for integral in integrals for limit in integral.limits]
    finite = all(len(limit) == 3 and not limit.has(sympy.oo) for limit in limits)
    return bool(integrals) and not tree.free_symbols and finite and not tree.has(*_NOT_SMOOTH)


def _is_power_of_matrix(node: sympy.Basic) -> bool:
    return isinstance(node, (sympy.Pow, sympy.MatPow)) and isinstance(node.base, sympy.MatrixBase)


def _is_odd_root_of_negative(node: sympy.Basic) -> bool:
    """Tell whether a node is an odd root of a negative number; we take the real root, sympy the principal one."""
    return bool(node.is_Pow and node.base.is_negative and node.exp.is_Rational and node.exp.q > 1 and node.exp.q % 2)
