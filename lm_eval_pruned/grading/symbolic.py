"""Two expressions are equal if they agree at random points to many digits; what cannot be sampled is simplified.

This runs inside a worker process (`worker.py`) and nowhere else: sympy can take any time and any memory.
"""

from __future__ import annotations

import io
import math
import random
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple, TypeAlias

import sympy  # type: ignore[import-untyped, unused-ignore]
from sympy.core.parameters import evaluate  # type: ignore[import-untyped, unused-ignore]

from lm_eval_pruned.grading.characters import plain_characters
from lm_eval_pruned.grading.latex import plain_latex

INSTALL = "pip install latex2sympy2-extended 'antlr4-python3-runtime==4.13.2'"

MAX_CHARACTERS = 2000
MAX_DEPTH = 30
MAX_DIGITS = 200
MAX_MEMBERS = 60
# Of any number that can arise, numerator and denominator together; about 30,000 decimal digits.
MAX_BITS = 100_000
MAX_FACTORIAL = 1000
MAX_FACTORS = 1000

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

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|.", re.DOTALL)
_OPENING = {"(", "[", "{", "\\{", "\\lfloor", "\\lceil", "\\begin"}
_CLOSING = {")", "]", "}", "\\}", "\\rfloor", "\\rceil", "\\end"}
_RELATIONS = {"=", "<", ">", "\\le", "\\ge", "\\ne", "\\in"}
_KINKED = (sympy.Abs, sympy.floor, sympy.ceiling, sympy.Max, sympy.Min)
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
_UNSAID_PRODUCT = re.compile(r"(?<=[0-9)])(?=\()")
# What the parser drops (bases, primes), reads as a product of letters (words) or groups in one of two ways (1/2x).
_REFUSED = re.compile(
    r"[0-9]\}?_|['%$#@\"`~?;&\x00-\x1f\x7f-\uffff]|(?<![\\A-Za-z])[A-Za-z]{4,}|/[0-9]+[A-Za-z\\(]|\^\^"
)


class UnreadableError(ValueError):
    """An answer cannot be read as mathematics, or is too large to be evaluated."""


class Decision(NamedTuple):
    """Whether two expressions are equal (None: undecided) and why."""

    equal: bool | None
    reason: str


class _Group(NamedTuple):
    """A set, list, tuple, interval, union, relation or matrix; `kind` says which, brackets and operators included."""

    kind: str
    ordered: bool
    members: tuple[_Node, ...]


_Node: TypeAlias = "_Group | sympy.Basic"


def symbolically_equal(left: str, right: str) -> bool | None:
    r"""Compare two LaTeX expressions as mathematics; the order of the two never matters.

    None means undecided. Nothing is ever evaluated as Python, and sizes are bounded before anything is computed.

    Example:
        >>> symbolically_equal(r"\sin^2 x + \cos^2 x", "1"), symbolically_equal("(x+1)^2", "x^2+1")
        (True, False)
    """
    return decide(left, right).equal


def decide(left: str, right: str) -> Decision:
    """Do what `symbolically_equal` does and say why."""
    one, other = sorted((left, right))
    try:
        return _compare(_read(one), _read(other))
    except UnreadableError as error:
        return Decision(None, str(error))
    except ImportError as error:
        return Decision(None, f"no LaTeX parser ({error}): {INSTALL}")
    except MemoryError:
        raise
    # Parser and sympy raise whatever they like, bare Exceptions included; none of it decides an answer.
    except Exception as error:
        return Decision(None, f"{type(error).__name__} in sympy or the LaTeX parser")


# --- reading


def _read(text: str) -> _Node:
    if len(text) > MAX_CHARACTERS:
        raise UnreadableError(f"longer than {MAX_CHARACTERS} characters")
    if re.search(rf"[0-9]{{{MAX_DIGITS + 1}}}", text):
        raise UnreadableError(f"more than {MAX_DIGITS} digits")
    if re.search(r"\\text|\\mathrm\{\w{2}|(?<![0-9_^])[0-9]+\s+[0-9]", text):
        raise UnreadableError("words or spaced numbers")
    tokens = _TOKEN.findall(plain_latex(plain_characters(text)))
    depth = deepest = 0
    for token in tokens:
        depth += (token in _OPENING) - (token in _CLOSING)
        deepest = max(deepest, depth)
    if depth or deepest > MAX_DEPTH:
        raise UnreadableError(f"unbalanced, or nested deeper than {MAX_DEPTH}")
    return _node(tokens)


def _node(tokens: list[str]) -> _Node:
    while tokens and tokens[-1] == " ":
        tokens = tokens[:-1]
    while tokens and tokens[0] == " ":
        tokens = tokens[1:]
    if not tokens:
        raise UnreadableError("empty")
    signs = {"\\pm": "+-", "\\mp": "-+"}
    if any(sign in tokens for sign in signs):
        return _group(
            "set",
            [[signs.get(token, 2 * token)[side] if token in signs else token for token in tokens] for side in (0, 1)],
        )
    for kind, separators in (("set", {","}), ("relation", _RELATIONS), ("union", {"\\cup"})):
        parts, found = _split(tokens, separators)
        if found:
            return _relation(parts, found) if kind == "relation" else _group(kind, parts)
    return _matrix(tokens) or _bracketed(tokens) or _parse("".join(tokens))


def _group(kind: str, parts: list[list[str]], *, ordered: bool = False) -> _Group:
    if len(parts) > MAX_MEMBERS:
        raise UnreadableError(f"more than {MAX_MEMBERS} members")
    return _Group(kind, ordered, tuple(_node(part) for part in parts))


def _split(tokens: list[str], separators: set[str]) -> tuple[list[list[str]], list[str]]:
    """Split at separators outside all brackets; return the parts and the separators between them."""
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


def _relation(parts: list[list[str]], operators: list[str]) -> _Group:
    if all(operator in _FLIPPED for operator in operators):
        parts, operators = parts[::-1], [_FLIPPED[operator] for operator in reversed(operators)]
    if len(operators) > 1 and not set(operators) <= {"<", "\\le"}:
        raise UnreadableError("a chain of mixed relations")
    family = "member of" if operators == ["\\in"] else "relation"
    return _group(f"{family} {' '.join(operators)}", parts, ordered=True)


def _matrix(tokens: list[str]) -> _Group | None:
    text = "".join(tokens)
    match = re.fullmatch(r"\\begin\{p?matrix\}(.*?)(?:\\\\)?\\end\{p?matrix\}", text, re.DOTALL)
    if not match or text.count("\\begin") > 1:
        return None
    rows = [_split(row, {"&"})[0] for row in _split(_TOKEN.findall(match[1]), {"\\\\"})[0]]
    if len({len(row) for row in rows}) > 1:
        raise UnreadableError("a matrix with rows of different lengths")
    cells = [cell for row in rows for cell in row]
    return _group(f"matrix {len(rows)}x{len(rows[0])}", cells, ordered=True)


def _bracketed(tokens: list[str]) -> _Group | _Node | None:
    """Read brackets around everything: a set, a tuple, an interval, or parentheses that mean nothing."""
    depth = 0
    for index, token in enumerate(tokens):
        depth += (token in _OPENING) - (token in _CLOSING)
        if not depth and index < len(tokens) - 1:
            return None
    brackets, inside = tokens[0] + tokens[-1], tokens[1:-1]
    if brackets == "\\{\\}":
        return _group("set", _split(inside, {","})[0])
    if brackets not in {"()", "[]", "(]", "[)"}:
        return None
    parts, commas = _split(inside, {","})
    return _group(f"brackets {brackets}", parts, ordered=True) if commas or brackets != "()" else _node(inside)


def _parse(text: str) -> sympy.Basic:
    text = _BARE_FUNCTION.sub(r"\\\1 ", text)
    text = _UNSAID_PRODUCT.sub(r"\\cdot", _MIXED.sub(r"(\1+\2)", text))
    unknown = [token for token in _TOKEN.findall(text) if token[0] == "\\" and token not in _COMMANDS]
    if unknown or _REFUSED.search(text):
        raise UnreadableError("not an expression that the LaTeX parser reads in one way only")
    # Unevaluated: the parser would otherwise compute binomials and compare towers of powers while it reads.
    with evaluate(False):
        tree = _parse_latex(text)
        tree = tree.xreplace({number: _exact(number) for number in tree.atoms(sympy.Float)})
    _bits(tree)
    return _evaluate(tree)


def _parse_latex(text: str) -> sympy.Basic:
    """Turn LaTeX into a tree: the one place that knows which parser is installed."""
    if find_spec("latex2sympy2_extended") is None:
        with redirect_stdout(io.StringIO()):  # it prints every tree
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


def _exact(number: sympy.Float) -> sympy.Rational:
    fraction = Fraction(str(number))
    return sympy.Rational(fraction.numerator, fraction.denominator)


# --- sizes, before anything is computed


def _bits(node: sympy.Basic) -> float:
    """Return an upper bound of the bits of the numbers in a tree; raise UnreadableError if they are too many."""
    if isinstance(node, sympy.Rational):
        bits = float(abs(node.p).bit_length() - 1 + node.q.bit_length())
    elif not node.args:
        bits = 5.0
    else:
        bits = _bits_of_operation(node, [_bits(argument) for argument in node.args])
    if bits > MAX_BITS:
        raise UnreadableError("too large a number")
    return max(bits, 1.0)


def _bits_of_operation(node: sympy.Basic, bits: list[float]) -> float:
    if isinstance(node, sympy.Pow):
        return float(bits[0] * _at_most(node.args[1], bits[1]))
    if isinstance(node, (sympy.exp, sympy.sinh, sympy.cosh, sympy.tanh)):
        return float(2 * _at_most(node.args[0], bits[0]))
    if isinstance(node, (sympy.factorial, sympy.binomial)):
        bound = _at_most(node.args[0], bits[0])
        if bound > MAX_FACTORIAL:
            raise UnreadableError(f"a factorial or binomial of more than {MAX_FACTORIAL}")
        return float(bound * math.log2(bound + 2))
    if isinstance(node, sympy.Product) and _at_most(node.args[1].args[-1], bits[1]) > MAX_FACTORS:
        raise UnreadableError(f"a product of more than {MAX_FACTORS} factors")
    if isinstance(node, sympy.Add):
        return max(bits) + math.log2(len(bits))
    return sum(bits)


def _at_most(node: sympy.Basic, bits: float) -> float:
    """Bound the magnitude of a number of so many bits."""
    if isinstance(node, sympy.Rational) and bits <= 64:
        return float(max(1, math.ceil(abs(Fraction(node.p, node.q)))))
    return float(2.0 ** min(bits, 64))


# --- comparing


def _evaluate(tree: sympy.Basic) -> sympy.Basic:
    value = tree.doit(integrals=not _can_be_integrated_numerically(tree))
    value = value.xreplace({symbol: sympy.I for symbol in value.free_symbols if symbol.name == "i"})
    if not value.has(sympy.I):
        value = value.replace(_is_odd_root_of_negative, lambda root: (-1) ** root.exp.p * (-root.base) ** root.exp)
    if value.has(sympy.nan, sympy.zoo):
        raise UnreadableError("no finite value")
    return value


def _can_be_integrated_numerically(tree: sympy.Expr) -> bool:
    """Tell whether all integrals are of smooth functions between numbers: quadrature is faster than a closed form."""
    integrals = tree.atoms(sympy.Integral)
    limits = [limit for integral in integrals for limit in integral.limits]
    finite = all(len(limit) == 3 and not limit.has(sympy.oo) for limit in limits)
    return bool(integrals) and not tree.free_symbols and finite and not tree.has(*_KINKED)


def _is_odd_root_of_negative(node: sympy.Basic) -> bool:
    """Tell where schools take the real root, -2 for that of -8, and sympy the principal one."""
    return bool(node.is_Pow and node.base.is_negative and node.exp.is_Rational and node.exp.q > 1 and node.exp.q % 2)


def _compare(one: _Node, other: _Node) -> Decision:
    if isinstance(one, _Group) and isinstance(other, _Group):
        return _compare_groups(one, other)
    if isinstance(one, _Group) or isinstance(other, _Group):
        return Decision(None, "an expression against a set, tuple, relation or matrix")
    return _compare_expressions(one, other)


def _compare_groups(one: _Group, other: _Group) -> Decision:
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


def _matches(ones: tuple[_Node, ...], others: tuple[_Node, ...]) -> Iterator[Decision]:
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


def _compare_relations(one: _Group, other: _Group) -> Decision:
    """Two equations are equal if one is the other times a number; inequalities, if that number is positive."""
    sides = [member for member in (*one.members, *other.members) if not isinstance(member, _Group)]
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
    if any(_can_be_integrated_numerically(side) for side in (one, other)):
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
