r"""Rewrite plain-text, HTML and plain-TeX notation as LaTeX: `2^-3`, `sqrt7`, `x<sup>2</sup>`, `17\over23`."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

from lm_eval_pruned.grading.vocabulary import SCALES, TYPED_COMMANDS

_WORD_FONT = r"(?:\\(?:text|mathrm|textrm|mbox|operatorname)\s?\{\s?)?"
_SIDE = r"(?:(?!\\(?:over|choose)(?![A-Za-z]))[^{}])"
# TeX's infix fraction and binomial take all that stands before and after them within the same braces.
_INFIX = rf"\{{(?P<above>{_SIDE}*)\\(?P<infix>over|choose)(?![A-Za-z])(?P<below>{_SIDE}*)\}}"
_PREFIX = {"over": "\\frac", "choose": "\\binom"}
# Unit vectors i, j, k; a single one of these letters may just be a letter in bold.
_VECTOR = re.compile(r"\\(?:mathbf|boldsymbol|bm|vec|hat)\s?\{?\s?\\?([ijk])(?:math)?(?![A-Za-z])\s?\}?")
# Typed without a backslash; others of these names are words or units, too.
_TYPED = "|".join(sorted(TYPED_COMMANDS.keys() - {"min", "max", "det", "inf", "infinity", "oo"}, reverse=True))
# Without pi, which is a number, and names that begin other commands.
_GREEK = "alpha|beta|gamma|delta|epsilon|theta|lambda|mu|rho|sigma|tau|phi|omega|Delta|Omega"
_RAISED = {"sup": "^", "sub": "_"}
# JSON makes two backslashes of one, and reads one before b or f as a control character.
_DOUBLED = re.compile(r"\\\\(?=[A-Za-z]{2}|[{}$%()[\],!])")
_DOUBLED_COMMAND = re.compile(r"(?<!\\)\\\\(?=[A-Za-z]{2})")
_LOST_ESCAPES = str.maketrans({"\b": "\\b", "\f": "\\f"})


def restore_backslashes(text: str) -> str:
    r"""Undo the escaping of LaTeX in JSON: each command with two backslashes, or a control character in its place.

    Example:
        >>> restore_backslashes(r"\\frac{1}{2}"), restore_backslashes("\frac12"), restore_backslashes(r"x\\y")
        ('\\frac{1}{2}', '\\frac12', 'x\\\\y')
    """
    if "\\\\" not in text and "\b" not in text and "\f" not in text:
        return text
    text = text.translate(_LOST_ESCAPES)
    if "\\" not in text.replace("\\\\", "") and _DOUBLED.search(text):
        return text.replace("\\\\", "\\")
    # Without a matrix, two backslashes before a word are no line break.
    return text if "\\begin" in text else _DOUBLED_COMMAND.sub(r"\\", text)


def _infix(match: re.Match[str]) -> str:
    return f"{_PREFIX[match['infix']]}{{{match['above']}}}{{{match['below']}}}"


# Each rule: a text that must occur for it to be tried, a pattern with bounded repetitions, and the replacement.
_PATTERNS: tuple[tuple[str, str, str | Callable[[re.Match[str]], str]], ...] = (
    (
        ";",
        r"&(?:nbsp|lt|gt|le|ge|ne|minus|times|pi|infin|deg|middot|frac12|radic);",
        lambda entity: html.unescape(entity[0]).replace("\u00a0", " "),
    ),
    ("quad", r"\\(q?quad)(?=[A-Za-z])", r"\\\1 "),
    ("</", r"<(sup|sub)>([^<>]{1,40})</\1>", lambda tag: f"{_RAISED[tag[1]]}{{{tag[2]}}}"),
    # What a model writes after its end is not its answer.
    ("<|", r"(?s)(?<=.)<\|[A-Za-z_]{1,30}\|>.*", ""),
    ("</", r"</?(?:b|i|u|p|s|em|strong|span|code|math)>", ""),
    ("<br", r"<br ?/?>", " "),
    ("\\over", r"\A[^{}=,\\]{1,40}\\over(?![A-Za-z])[^{}=,\\]{1,40}\Z", r"{\g<0>}"),
    ("\\over", _INFIX, _infix),
    ("\\choose", _INFIX, _infix),
    # Equations of a system, one a line, and a chain of equalities over several lines.
    ("{cases}", r"\\begin\{cases\}([^&]{0,400})\\end\{cases\}", r"\1"),
    ("\\\\", r"(?s)\A(?!.*(?:&|begin))(.{1,200})\\\\\s?(?=.*=)", r"\1, "),
    ("\\\\", r"\\\\\s?&?\s?=", "="),
    # Braces of a set that are not escaped, as people type them.
    ("{", r"\A\{(?=\}|[A-Za-z]\s?(?:[:|]|\\mid|\\in))((?:[^{}]|\{[^{}]{0,40}\}){0,400})\}\Z", r"\\{\1\\}"),
    ("U", r"(?<=[)\]}])\s?U\s?(?=(?:\\left\s?)?(?:\\?\{|[(\[][^()\[\]]{1,40},))", r"\\cup "),
    *(
        (sign, pattern, r"\1\\{\2\\}")
        for sign in ("\\cup", "\\cap")
        for pattern in (
            r"(\\c[au]p\s{0,2})\{([^{}]{1,80})\}",
            r"(?<![A-Za-z}\]^_\\])()\{([^{}]{1,80})\}(?=\s{0,2}\\c[au]p(?![A-Za-z]))",
        )
    ),
    ("<", r"\A<([^<>=]{1,80},[^<>=]{1,80})>\Z", r"\\langle \1\\rangle "),
    ("**", r"(?<=[A-Za-z0-9)}])\*\*(?=[A-Za-z0-9({-])", "^"),
    ("x", r"(?<=[0-9])\s?x\s?(?=10\s?\^)", r"\\cdot "),
    ("/d", r"(?<![A-Za-z\\])d([a-z])/d([a-z])(?![A-Za-z])", r"\\frac{d\1}{d\2}"),
    ("/", r"\^\{?([0-9]{1,9})\}?/_\{?([0-9]{1,9})\}?", r"\\frac{\1}{\2}"),
    ("^", r"\^\s?([0-9]{0,40}\.[0-9]{1,40}|[0-9]{2,40})(?![0-9])", r"^{\1}"),
    ("^", r"\^\s?-\s?([0-9]{1,40}(?:\.[0-9]{1,40})?|[A-Za-z])", r"^{-\1}"),
    ("^", rf"\^(?=[a-z]{{2}})((?:{_TYPED})\([^()]{{1,40}}\))", r"^{\1}"),
    ("\\prime", r"\^\s?\{?\s?\\prime(?![A-Za-z])\s?\}?", "'"),
    ("_", r"(?<![A-Za-z\\])([A-Za-z])_([0-9]{2,9})", r"\1_{\2}"),
    # The index of v^2_0 belongs to its name.
    ("_", r"(?<=[A-Za-z])\^(\{[^{}]{1,20}\}|[0-9])_(\{[^{}]{1,20}\}|[0-9A-Za-z])", r"_\2^\1"),
    (" ", rf"(?<![\\A-Za-z])(?=[a-z]{{2,10}} )({_TYPED}) (?=(?:[A-Za-z]|{_TYPED})(?![A-Za-z])|\\[a-z])", r"\\\1 "),
    (" ", rf"(?<![A-Za-z\\])([A-Za-z]) (?=(?:{_GREEK})(?![A-Za-z]))", r"\1\\"),
    (" in ", r"(?<![A-Za-z])([A-Za-z]) in (?=[(\[])", r"\1\\in "),
    ("log", r"(?<![A-Za-z])log(2|10)(?=\()", r"log_{\1}"),
    (
        "sum",
        r"(?<![\\A-Za-z])sum(?:mation)?\(([^,]{1,80}),\s?\(?([a-z]),\s?([^,()]{1,20}),\s?([^,()]{1,20})\)?\)",
        r"\\sum_{\2=\3}^{\4}(\1)",
    ),
    ("cbrt", r"(?<![A-Za-z])cbrt\(([^()]{1,40})\)", r"\\sqrt[3]{\1}"),
    ("sqrt", r"(?<![\\A-Za-z])sqrt ?([0-9]{1,40})", r"\\sqrt{\1}"),
    ("{", r"(?<![\\A-Za-z])[dt]?(frac|sqrt|binom)(?=\{)", r"\\\1"),
    # A blank that was lost after a command, and an index that was typed after a Greek letter.
    (
        "\\",
        r"\\((?:sin|cos|tan|cot|sec|csc|ln|log|le|ge|pi)(?=[A-Za-gi-pr-z](?![A-Za-z]))"
        rf"|(?:{_GREEK})(?=[A-Za-z]{{1,2}}(?![A-Za-z])))",
        r"\\\1 ",
    ),
    ("\\", rf"\\({_GREEK}) ?([0-9])(?![0-9.])", r"\\\1_{\2}"),
    ("(", r"(?<![\\A-Za-z])a((?:sin|cos|tan)h?)(?=(?:\^\{?[0-9]{1,9}\}?)?\()", r"arc\1"),
    ("...", r"(?<=[0-9])\.([0-9]{0,40}?)([0-9]{1,9})\2\2{1,9}(?:\.\.\.|\\[lc]?dots)\Z", r".\1\\overline{\2}"),
    ("\\dot", r"\\dot\s?\{?([0-9])\}?(?:([0-9]{0,40})\\dot\s?\{?([0-9])\}?)?", r"\\overline{\1\2\3}"),
    # The smaller number is hardly ever an index.
    (
        "C_",
        r"(?<![A-Za-z\\])C_\{?(?:([4-9])\}?\^\{?([1-4])|([0-9]{2,3})\}?\^\{?([0-9]))(?![0-9])\}?",
        r"\\binom{\1\3}{\2\4}",
    ),
    (
        "C",
        r"(?:\{\})?[_^]\{?([0-9]{1,4})\}?\s?(?:C|\\(?:text|mathrm)\{C\})_\{?([0-9]{1,4})\}?",
        r"\\binom{\1}{\2}",
    ),
    ("mod", rf"\(\s?{_WORD_FONT}mod\s?\}}?\s?([0-9]{{1,9}})\s?\}}?\s?\)", r"\\pmod{\1}"),
    ("mod", r"(?<=[0-9a-z])\s?(?<![A-Za-z\\])mod\s([0-9]{1,9})\Z", r"\\pmod{\1}"),
    ("\\\\", r"\\\\\s?\[-?[0-9.]{1,6}\s?(?:pt|em|ex|mm|cm|in)\]", r"\\\\"),
    ("to", r"(?<=[0-9])\s?(?:\\text\{\s?to\s?\}|\sto\s)\s?(?=[0-9])", ":"),
    *(
        (word[1:], rf"(?i)(?<=[0-9])\s?(?:\\[,; ])?{_WORD_FONT}\s?{word}(?![A-Za-z])", rf"\\cdot 10^{{{power}}} ")
        for word, power in SCALES.items()
    ),
)


def _expander(template: str) -> Callable[[re.Match[str]], str]:
    """Return a function that expands a template. Unlike the template, it costs nothing where nothing matches."""
    return lambda match: match.expand(template)


_RULES = [
    (trigger, re.compile(pattern), _expander(replacement) if isinstance(replacement, str) else replacement)
    for trigger, pattern, replacement in _PATTERNS
]


def normalize_typed_math(text: str) -> str:
    r"""Rewrite as LaTeX what is typed in another notation.

    Example:
        >>> normalize_typed_math("2^-3+x**2"), normalize_typed_math("sqrt7/frac{1}{2}")
        ('2^{-3}+x^2', '\\sqrt{7}/\\frac{1}{2}')
        >>> normalize_typed_math(r"17\over 23"), normalize_typed_math("5 to 8")
        ('\\frac{17}{ 23}', '5:8')
        >>> normalize_typed_math(r"4.5\text{ million}")
        '4.5\\cdot 10^{6} }'
    """
    if "\\" in text and len(set(_VECTOR.findall(text))) > 1:
        text = _VECTOR.sub(r"\\hat{\1}", text)
    for trigger, pattern, replacement in _RULES:
        if trigger in text:
            text = pattern.sub(replacement, text)
    return text
