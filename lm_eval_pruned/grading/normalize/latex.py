"""Rewrite LaTeX with one spelling for each construct: braces around arguments only, no fonts, sizes or spacing."""

from __future__ import annotations

import re

from lm_eval_pruned.grading.normalize.braces import match_braces
from lm_eval_pruned.grading.normalize.latex_writer import Writer
from lm_eval_pruned.grading.normalize.typed_math import normalize_typed_math
from lm_eval_pruned.grading.vocabulary import commands

# A run of ordinary characters is one token; it is split only where its first character is an argument.
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\s+|[0-9A-Za-z][0-9A-Za-z.+\-/']*|.", re.DOTALL)

_FONTS = commands(
    "text textbf textit textrm textnormal texttt textsf textsc emph mbox hbox bf rm it sf tt "
    "mathrm mathbf mathit mathsf mathtt mathcal mathnormal ensuremath boldsymbol pmb bm underline "
    "operatorname boxed fbox framebox "
    "displaystyle textstyle limits nolimits"
)
_SIZES = commands(
    "left right middle big Big bigg Bigg bigl bigr Bigl Bigr tiny small normalsize large Large LARGE huge Huge"
)
# Commands whose first argument only changes the appearance.
_APPEARANCE = commands("color textcolor colorbox hspace vspace phantom hphantom vphantom tag label")
_THIN = commands("! ,")
_GAPS = commands(
    "( ) [ ] , : ; > quad qquad enspace thinspace medspace thickspace hfill "
    "therefore checkmark blacksquare qed mathstrut strut nonumber notag"
) | {"\\ ", "$", "~"}

_SPELLINGS = {
    "\\cdot": "* \\times",
    "\\%": "%",
    "/": "\\div",
    "\\sqrt": "\\surd",
    "\\\\": "\\cr",
    "\\pmod": "\\mod",
    "\\frac": "\\dfrac \\tfrac \\cfrac \\nicefrac \\sfrac",
    "\\binom": "\\dbinom \\tbinom",
    "T": "\\top \\intercal",
    "\\le": "\\leq \\leqslant",
    "\\ge": "\\geq \\geqslant",
    "\\ne": "\\neq",
    "<": "\\lt",
    ">": "\\gt",
    "\\land": "\\wedge",
    "\\lor": "\\vee",
    "\\overline": "\\bar",
    "\\ldots": "\\dots \\cdots",
    "\\{": "\\lbrace",
    "\\}": "\\rbrace",
    "[": "\\lbrack",
    "]": "\\rbrack",
    "\\emptyset": "\\varnothing",
    ":": "\\colon",
    "^{\\circ}": "\\degree \\textdegree",
    "\\$": "\\dollar",
}
_SYNONYMS = {spelling: token for token, spellings in _SPELLINGS.items() for spelling in spellings.split()}
_DISPLAY = re.compile(r"\\(?:begin|end)\{(?:align(?:ed)?|split|gather(?:ed)?|equation|(?:display)?math)\*?\}")
# Matches most short answers, which need no rewriting.
_PLAIN = re.compile(r"[A-Za-z0-9+\-()|!':/]*(?:[.=<>](?![.=])[A-Za-z0-9+\-()|!':/]*)*")
# Alignment marks next to a relation or at the start; outside matrices they mean nothing there.
_ALIGNMENT = re.compile(
    r"\A\s?&|(?<=[=<>])\s{0,9}&|&\s{0,9}(?=[=<>]|\\(?:le|ge|leq|geq|leqslant|geqslant|lt|gt|approx|equiv)(?![A-Za-z]))"
)
_DIGRAPHS = {"...": "\\ldots ", "<=": "\\le ", ">=": "\\ge ", " != ": "\\ne "}


def normalize_latex(text: str) -> str:
    r"""Rewrite `text` with one spelling for each LaTeX construct; takes linear time and no recursion.

    Example:
        >>> normalize_latex(r"\left( \dfrac12, {x}^{2} \right)")
        '(\\frac{1}{2}, x^{2})'
        >>> normalize_latex(r"\frac{270}7\text{ degrees}")
        '\\frac{270}{7}degrees'
    """
    text = normalize_typed_math(text)
    if _PLAIN.fullmatch(text):
        return text
    for old, new in _DIGRAPHS.items():
        text = text.replace(old, new)
    if "\\begin" in text or "\\end" in text:
        text = _DISPLAY.sub("", text).replace("{bmatrix}", "{pmatrix}")
    if ("&" in text or "\\\\" in text) and "\\begin" not in text:
        text = _ALIGNMENT.sub("", text).rstrip("\\&,;. \n")
    tokens = [_SYNONYMS.get(token, token) for token in _TOKEN.findall(text)]
    if "^" in text and "(" in text:
        tokens = _brace_exponents(tokens)
    partners = match_braces(enumerate(tokens))
    closing = set(partners.values())
    writer, index = Writer(), 0
    while index < len(tokens):
        token = tokens[index]
        if token[0].isascii() and token[0].isalnum():
            writer.put_run(token)
            index += 1
            continue
        index = _write_token(writer, tokens, index, partners, closing)
    return writer.finish()


def _brace_exponents(tokens: list[str]) -> list[str]:
    """Put braces around an exponent in parentheses, since people mean all of it to be raised."""
    braced: list[str] = []
    closers: list[str] = []
    before = ""
    for token in tokens:
        if token == "(":
            is_exponent = before == "^"
            closers.append(")}" if is_exponent else ")")
            braced += ["{", "("] if is_exponent else ["("]
        elif token == ")" and closers:
            braced += closers.pop()
        else:
            braced.append(token)
        # Sizes such as \left stand between `^` and its bracket.
        before = before if token in _SIZES or token.isspace() else token
    return braced


def _write_token(writer: Writer, tokens: list[str], index: int, partners: dict[int, int], closing: set[int]) -> int:
    """Write the token at `index` and return the index of the next one."""
    token, after = tokens[index], index + 1
    following = tokens[after] if after < len(tokens) else ""
    if token in _GAPS or token.isspace():
        writer.skip_blank()
    elif token in _FONTS:
        writer.end_arguments()
    elif token in _APPEARANCE and following == "{" and after in partners:
        return partners[after] + 1
    elif token in _SIZES:
        return after + (following == ".")
    elif token == "," and not writer.waiting:
        writer.put(", " if following.isspace() else ",")
        return after + (following in _THIN)
    elif token == "{" and index in partners:
        writer.open()
    elif token == "}" and index in closing:
        writer.close()
    elif token == "[" and writer.waiting and writer.last == "\\sqrt":
        writer.open_option()
    elif token not in ("{", "}", "\\!"):
        writer.put(token)
    return after
