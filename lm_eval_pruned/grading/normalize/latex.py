"""One spelling for every LaTeX construct: braces stand around arguments and nowhere else, looks are dropped."""

from __future__ import annotations

import re

from lm_eval_pruned.grading.normalize.braces import match_braces
from lm_eval_pruned.grading.normalize.latex_writer import Writer
from lm_eval_pruned.grading.normalize.typed_math import plain_typing
from lm_eval_pruned.grading.vocabulary import commands

# A run of characters that stand for themselves is one token, parted where only its first one is an argument.
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
# Their first argument changes looks alone; what follows is meant.
_LOOKS = commands("color textcolor hspace vspace phantom hphantom vphantom")
_THIN = commands("! ,")
_GAPS = commands(
    "( ) [ ] , : ; > quad qquad enspace thinspace medspace thickspace hfill "
    "therefore checkmark blacksquare qed mathstrut strut nonumber notag"
) | {"\\ ", "$", "~"}

_SAME = {
    "*": "\\cdot",
    "%": "\\%",
    "\\times": "\\cdot",
    "\\div": "/",
    "\\surd": "\\sqrt",
    "\\cr": "\\\\",
    "\\mod": "\\pmod",
    "\\dfrac": "\\frac",
    "\\nicefrac": "\\frac",
    "\\sfrac": "\\frac",
    "\\tfrac": "\\frac",
    "\\top": "T",
    "\\intercal": "T",
    "\\cfrac": "\\frac",
    "\\dbinom": "\\binom",
    "\\tbinom": "\\binom",
    "\\leq": "\\le",
    "\\leqslant": "\\le",
    "\\geq": "\\ge",
    "\\geqslant": "\\ge",
    "\\neq": "\\ne",
    "\\lt": "<",
    "\\gt": ">",
    "\\wedge": "\\land",
    "\\vee": "\\lor",
    "\\bar": "\\overline",
    "\\dots": "\\ldots",
    "\\cdots": "\\ldots",
    "\\lbrace": "\\{",
    "\\rbrace": "\\}",
    "\\lbrack": "[",
    "\\rbrack": "]",
    "\\varnothing": "\\emptyset",
    "\\colon": ":",
    "\\degree": "^{\\circ}",
    "\\textdegree": "^{\\circ}",
    "\\dollar": "\\$",
}
_DISPLAYS = [
    f"\\{side}{{{name}{star}}}"
    for side in ("begin", "end")
    for name in ("aligned", "align", "split", "gather", "gathered", "equation", "math", "displaymath")
    for star in ("", "*")
]
# What this leaves as it is; most short answers.
_PLAIN = re.compile(r"[A-Za-z0-9+\-()|!':/]*(?:[.=<>](?![.=])[A-Za-z0-9+\-()|!':/]*)*")
_RELATIONS = {"=", "<", ">", "\\le", "\\ge", "\\approx", "\\equiv"}
_DIGRAPHS = {"...": "\\ldots ", "<=": "\\le ", ">=": "\\ge "}


def plain_latex(text: str) -> str:
    r"""Rewrite `text` with one spelling for each LaTeX construct; runs in linear time and without recursion.

    Example:
        >>> plain_latex(r"\left( \dfrac12, {x}^{2} \right)")
        '(\\frac{1}{2}, x^{2})'
        >>> plain_latex(r"\frac{270}7\text{ degrees}")
        '\\frac{270}{7}degrees'
    """
    text = plain_typing(text)
    if _PLAIN.fullmatch(text):
        return text
    for old, new in _DIGRAPHS.items():
        text = text.replace(old, new)
    if "\\begin" in text or "\\end" in text:
        for display in _DISPLAYS:
            text = text.replace(display, "")
        text = text.replace("{bmatrix}", "{pmatrix}")
    tokens = [_SAME.get(token, token) for token in _TOKEN.findall(text)]
    if ("&" in text or "\\\\" in text) and "\\begin" not in text:
        tokens = _without_edges(tokens)
    if "^" in text and "(" in text:
        tokens = _with_braced_exponents(tokens)
    partners = match_braces(enumerate(tokens))
    closing = set(partners.values())
    writer, index = Writer(), 0
    while index < len(tokens):
        token = tokens[index]
        if token[0].isascii() and token[0].isalnum():
            writer.put_run(token)
            index += 1
            continue
        index = _step(writer, tokens, index, partners, closing)
    return writer.finish()


def _without_edges(tokens: list[str]) -> list[str]:
    """Drop the marks of columns beside a relation or at an end, and the end of a line behind which no other comes."""
    # Marks wait for what comes behind them; `before` is what stood in front of them.
    kept: list[str] = []
    waiting: list[str] = []
    before = "="
    for token in [*tokens, "="]:
        if token == "&" or (waiting and token.isspace()):
            waiting.append(token)
            continue
        beside_relation = before in _RELATIONS or token in _RELATIONS
        kept += [mark for mark in waiting if mark != "&" or not beside_relation]
        kept.append(token)
        waiting, before = [], before if token.isspace() else token
    kept.pop()
    while kept and (kept[-1] in ("\\\\", "&", ",", ";", ".") or kept[-1].isspace()):
        kept.pop()
    return kept


def _with_braced_exponents(tokens: list[str]) -> list[str]:
    """Put braces around an exponent in parentheses, all of which is raised."""
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
        # The size of a bracket stands between.
        before = before if token in _SIZES or token.isspace() else token
    return braced


def _step(writer: Writer, tokens: list[str], index: int, partners: dict[int, int], closing: set[int]) -> int:
    """Write the token at `index` and return the index of the next one."""
    token, after = tokens[index], index + 1
    following = tokens[after] if after < len(tokens) else ""
    if token in _GAPS or token.isspace():
        writer.skip_blank()
    elif token in _FONTS:
        writer.end_arguments()
    elif token in _LOOKS and following == "{" and after in partners:
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
