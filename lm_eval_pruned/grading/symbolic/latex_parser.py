"""Parser from LaTeX to sympy: refuses what latex2sympy2-extended misreads, bounds all sizes, and leaves the rest to it.

It runs only inside a worker process (`worker_process.py`).
"""

from __future__ import annotations

import re
from importlib import import_module
from itertools import accumulate

import sympy
from sympy.core.parameters import evaluate

from lm_eval_pruned.grading.limits import MAX_SYMPY_ARGUMENT, MAX_SYMPY_DEPTH, MAX_SYMPY_DIGITS
from lm_eval_pruned.grading.normalize.latex import normalize_latex
from lm_eval_pruned.grading.normalize.unicode import normalize_characters
from lm_eval_pruned.grading.read.tokens import UnreadableError
from lm_eval_pruned.grading.vocabulary import FUNCTIONS, SYMBOLS, TYPED_COMMANDS, commands

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|.", re.DOTALL)
_OPENING = {"(", "[", "{", "\\{", "\\lfloor", "\\lceil", "\\begin"}
_CLOSING = {")", "]", "}", "\\}", "\\rfloor", "\\rceil", "\\end"}
# It reads \Gamma as a number.
_COMMANDS = (FUNCTIONS | SYMBOLS) - commands("Gamma")
_COMMANDS |= commands(
    "\\ frac sqrt cdot div binom int sum prod lim to rightarrow circ lfloor rfloor lceil rceil le ge ne begin end"
)
_BARE_COMMAND = re.compile(rf"(?<![\\A-Za-z])({'|'.join(TYPED_COMMANDS)})(?![A-Za-z])")
_MIXED = re.compile(r"(?<![0-9.}^_])([0-9]+)(\\frac\{[0-9]+\}\{[0-9]+\})")
_ENVIRONMENT = re.compile(r"\{[pb]matrix\}")
_IMPLICIT_PRODUCT = re.compile(r"(?<=[0-9)])(?=\()")
_WORDS_OR_LONG_NUMBERS = re.compile(
    rf"\\text|\\mathrm\{{\w{{2}}|(?<![0-9_^])[0-9]+\s+[0-9]|[0-9]{{{MAX_SYMPY_DIGITS + 1}}}"
)
# Input that it drops (bases, primes), reads as a product of letters (words) or can read in two ways (1/2x).
_REFUSED = re.compile(
    r"[0-9]\}?_|['%$#@\"`~?;:\x00-\x1f\x7f-\uffff]|(?<![\\A-Za-z])[A-Za-z]{4,}|/[0-9]+(?:[A-Za-z(]|\\(?!\\))|\^\^|!="
    r"|(?<![\\A-Za-z])[A-Za-z][0-9]|(?:(?<![A-Za-z])[A-Za-z]|[0-9)])\^\{[^{}]*\}[0-9]"
)
_NOT_SMOOTH = (sympy.Abs, sympy.floor, sympy.ceiling, sympy.Max, sympy.Min)
# Operations whose value grows fast with one argument, which is bounded before anything is computed.
_GROWING = {sympy.Pow: 1, sympy.exp: 0, sympy.sinh: 0, sympy.cosh: 0, sympy.tanh: 0}
_GROWING |= {sympy.factorial: 0, sympy.binomial: 0}


def parse(text: str) -> sympy.Basic:
    """Parse one LaTeX expression, equation or inequality, and evaluate it, if its size is bounded.

    Raises:
        UnreadableError: it is not mathematics, can be read in more than one way, or is too large to be evaluated.
    """
    if _WORDS_OR_LONG_NUMBERS.search(text):
        raise UnreadableError("words, spaced numbers or too many digits")
    text = normalize_latex(normalize_characters(text))
    depths = list(accumulate((token in _OPENING) - (token in _CLOSING) for token in _TOKEN.findall(text)))
    if not depths or depths[-1] or max(depths) > MAX_SYMPY_DEPTH:
        raise UnreadableError(f"unbalanced, or nested deeper than {MAX_SYMPY_DEPTH}")
    text = _BARE_COMMAND.sub(lambda word: f"{TYPED_COMMANDS[word[0]]} ", text)
    text = _IMPLICIT_PRODUCT.sub(r"\\cdot", _MIXED.sub(r"(\1+\2)", text))
    unknown = [token for token in _TOKEN.findall(text) if token[0] == "\\" and token not in _COMMANDS]
    if not text or unknown or "," in text or _REFUSED.search(_ENVIRONMENT.sub("", text)):
        raise UnreadableError("not an expression that the LaTeX parser reads in one way only")
    # Without evaluation: the parser would otherwise compute binomials and compare towers of powers while it reads.
    with evaluate(False):
        tree = _parse_latex(text)
        tree = tree.xreplace({number: sympy.Rational(str(number)) for number in tree.atoms(sympy.Float)})
    _bound_arguments(tree)
    if isinstance(tree, sympy.Rel):
        return tree.func(*map(_evaluate, tree.args), evaluate=False)
    return _evaluate(tree)


def _parse_latex(text: str) -> sympy.Basic:
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


def _bound_arguments(tree: sympy.Basic) -> None:
    """Raise UnreadableError if a power, factorial or the like has too large an argument; inner ones come first."""
    for node in sympy.postorder_traversal(tree):
        if isinstance(node, sympy.Product):
            argument = node.args[1].args[-1]
        elif node.func in _GROWING:
            argument = node.args[_GROWING[node.func]]
        else:
            continue
        size = 0 if argument.free_symbols else abs(argument.evalf(5))
        # 7^(2^-900) differs from one in no digit that is compared.
        if size != 0 and not MAX_SYMPY_ARGUMENT**-4 < size <= MAX_SYMPY_ARGUMENT:
            raise UnreadableError(f"{node.func.__name__} of a number that is too large or too small")


def _evaluate(tree: sympy.Basic) -> sympy.Basic:
    """Compute all but integrals of smooth functions between numbers, which are faster to compute numerically."""
    value = tree.doit(integrals=bool(tree.free_symbols) or tree.has(sympy.oo, *_NOT_SMOOTH))
    if tree.atoms(sympy.MatrixBase):
        value = value.replace(_is_power_of_matrix, lambda power: power.base**power.exp).doit()
    if value.has(sympy.nan, sympy.zoo):
        raise UnreadableError("no finite value")
    return value


def _is_power_of_matrix(node: sympy.Basic) -> bool:
    return isinstance(node, (sympy.Pow, sympy.MatPow)) and isinstance(node.base, sympy.MatrixBase)
