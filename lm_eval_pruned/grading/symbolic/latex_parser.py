"""Parser from LaTeX to sympy: splits collections itself, bounds all sizes, and leaves expressions to latex2sympy2.

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
_RELATIONS = {"=", "<", ">", "\\le", "\\ge", "\\ne", "\\in"}
_NOT_SMOOTH = (sympy.Abs, sympy.floor, sympy.ceiling, sympy.Max, sympy.Min)
_FLIPPED = {">": "<", "\\ge": "\\le"}
_FUNCTIONS = "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp"
_COMMANDS = {
    f"\\{name}"
    for name in (
        f"{_FUNCTIONS} frac sqrt cdot div pi infty binom int sum prod lim to rightarrow max min circ lfloor rfloor "
        "lceil rceil alpha beta delta epsilon varepsilon theta lambda mu nu xi rho sigma tau phi varphi chi psi omega "
        "zeta eta kappa Delta Theta Lambda Sigma Phi Psi Omega"
    ).split()
}
_BARE_FUNCTION = re.compile(rf"(?<![\\A-Za-z])({_FUNCTIONS.replace(' ', '|')}|pi)(?![A-Za-z])")
_MIXED = re.compile(r"(?<![0-9.}^_])([0-9]+)(\\frac\{[0-9]+\}\{[0-9]+\})")
_IMPLICIT_PRODUCT = re.compile(r"(?<=[0-9)])(?=\()")
# Input that latex2sympy2 drops (bases, primes), reads as a product of letters (words) or can read in two ways (1/2x).
_REFUSED = re.compile(
    r"[0-9]\}?_|['%$#@\"`~?;&\x00-\x1f\x7f-\uffff]|(?<![\\A-Za-z])[A-Za-z]{4,}|/[0-9]+[A-Za-z\\(]|\^\^"
)


class Collection(NamedTuple):
    """A set, list, tuple, interval, union, relation or matrix; `kind` names it with its brackets and operators."""

    kind: str
    ordered: bool
    members: tuple[Parsed, ...]


Parsed: TypeAlias = "Collection | sympy.Basic"


def parse(text: str) -> Parsed:
    """Parse LaTeX: take sets, tuples, relations and matrices apart, and evaluate expressions of bounded size.

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
    while tokens and tokens[-1] == " ":
        tokens = tokens[:-1]
    while tokens and tokens[0] == " ":
        tokens = tokens[1:]
    if not tokens:
        raise UnreadableError("empty")
    signs = {"\\pm": "+-", "\\mp": "-+"}
    if any(sign in tokens for sign in signs):
        return _collect(
            "set",
            [[signs.get(token, 2 * token)[side] if token in signs else token for token in tokens] for side in (0, 1)],
        )
    for kind, separators in (("set", {","}), ("relation", _RELATIONS), ("union", {"\\cup"})):
        parts, found = _split_at(tokens, separators)
        if found:
            return _read_relation(parts, found) if kind == "relation" else _collect(kind, parts)
    return _read_matrix(tokens) or _read_brackets(tokens) or _read_expression("".join(tokens))


def _collect(kind: str, parts: list[list[str]], *, ordered: bool = False) -> Collection:
    if len(parts) > MAX_SYMPY_MEMBERS:
        raise UnreadableError(f"more than {MAX_SYMPY_MEMBERS} members")
    return Collection(kind, ordered, tuple(_read(part) for part in parts))


def _split_at(tokens: list[str], separators: set[str]) -> tuple[list[list[str]], list[str]]:
    """Split at separators outside all brackets; return the pieces and the separators between them."""
    parts: list[list[str]] = [[]]
    found, depth = [], 0
    for token in tokens:
        depth += (token in _OPENING) - (token in _CLOSING)
        if not depth and token in separators:
            found.append(token)
            parts.append([])
        else:
            parts[-1].append(token)
    return parts, found


def _read_relation(parts: list[list[str]], operators: list[str]) -> Collection:
    if all(operator in _FLIPPED for operator in operators):
        parts, operators = parts[::-1], [_FLIPPED[operator] for operator in reversed(operators)]
    if len(operators) > 1 and not set(operators) <= {"<", "\\le"}:
        raise UnreadableError("a chain of mixed relations")
    family = "member of" if operators == ["\\in"] else "relation"
    return _collect(f"{family} {' '.join(operators)}", parts, ordered=True)


def _read_matrix(tokens: list[str]) -> Collection | None:
    text = "".join(tokens)
    match = re.fullmatch(r"\\begin\{p?matrix\}(.*?)(?:\\\\)?\\end\{p?matrix\}", text, re.DOTALL)
    if not match or text.count("\\begin") > 1:
        return None
    rows = [_split_at(row, {"&"})[0] for row in _split_at(_TOKEN.findall(match[1]), {"\\\\"})[0]]
    if len({len(row) for row in rows}) > 1:
        raise UnreadableError("a matrix with rows of different lengths")
    cells = [cell for row in rows for cell in row]
    return _collect(f"matrix {len(rows)}x{len(rows[0])}", cells, ordered=True)


def _read_brackets(tokens: list[str]) -> Collection | Parsed | None:
    """Read brackets around everything: a set, a tuple, an interval, or redundant parentheses."""
    depth = 0
    for index, token in enumerate(tokens):
        depth += (token in _OPENING) - (token in _CLOSING)
        if not depth and index < len(tokens) - 1:
            return None
    brackets, inside = tokens[0] + tokens[-1], tokens[1:-1]
    if brackets == "\\{\\}":
        return _collect("set", _split_at(inside, {","})[0])
    if brackets not in {"()", "[]", "(]", "[)"}:
        return None
    parts, commas = _split_at(inside, {","})
    return _collect(f"brackets {brackets}", parts, ordered=True) if commas or brackets != "()" else _read(inside)


def _read_expression(text: str) -> sympy.Basic:
    text = _BARE_FUNCTION.sub(r"\\\1 ", text)
    text = _IMPLICIT_PRODUCT.sub(r"\\cdot", _MIXED.sub(r"(\1+\2)", text))
    unknown = [token for token in _TOKEN.findall(text) if token[0] == "\\" and token not in _COMMANDS]
    if unknown or _REFUSED.search(text):
        raise UnreadableError("not an expression that the LaTeX parser reads in one way only")
    # Without evaluation: the parser would otherwise compute binomials and compare towers of powers while it reads.
    with evaluate(False):
        tree = _parse_latex(text)
        tree = tree.xreplace({number: _to_rational(number) for number in tree.atoms(sympy.Float)})
    _bound_bits(tree)
    return _evaluate(tree)


def _parse_latex(text: str) -> sympy.Basic:
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
    if not isinstance(tree, sympy.Expr):
        raise UnreadableError("not an expression")
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


def _evaluate(tree: sympy.Basic) -> sympy.Basic:
    value = tree.doit(integrals=not can_be_integrated_numerically(tree))
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


def _is_odd_root_of_negative(node: sympy.Basic) -> bool:
    """Tell whether a node is an odd root of a negative number; we take the real root, sympy the principal one."""
    return bool(node.is_Pow and node.base.is_negative and node.exp.is_Rational and node.exp.q > 1 and node.exp.q % 2)
