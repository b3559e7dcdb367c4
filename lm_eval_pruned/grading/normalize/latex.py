"""Rewrite LaTeX with one spelling for each construct: braces around arguments only, no fonts, sizes or spacing."""

from __future__ import annotations

import re

from lm_eval_pruned.grading.normalize.braces import match_braces
from lm_eval_pruned.grading.normalize.typed_math import normalize_typed_math
from lm_eval_pruned.grading.vocabulary import ACCENTS, FUNCTIONS, commands

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
_GAPS = commands(
    "( ) [ ] , : ; > quad qquad enspace thinspace medspace thickspace hfill "
    "therefore checkmark blacksquare qed mathstrut strut nonumber notag"
) | {"\\ ", "$", "~"}

# The spelling that is kept, and the others.
_SPELLINGS = (
    r"\cdot * \times \*; \% %; / \div; \sqrt \surd; \\ \cr; \pmod \mod; \frac \dfrac \tfrac \cfrac \nicefrac \sfrac; "
    r"\binom \dbinom \tbinom; T \top \intercal; \le \leq \leqslant; \ge \geq \geqslant; \ne \neq; < \lt; > \gt; "
    r"\land \wedge; \lor \vee; \overline \bar; \ldots \dots \cdots; \{ \lbrace; \} \rbrace; [ \lbrack; ] \rbrack; "
    r"\emptyset \varnothing; : \colon; ^{\circ} \degree \textdegree; \$ \dollar; | \vert; \tan \tg; \cot \ctg \cotg; "
    r"\arctan \arctg; \epsilon \varepsilon; \phi \varphi; \theta \vartheta; \infty \infinity"
)
_SYNONYMS = {other: kept for kept, *others in map(str.split, _SPELLINGS.split(";")) for other in others}
# Arguments of each command. Every pair of braces after a command in neither list is an argument.
_ARGUMENTS = {"\\frac": 2, "\\binom": 2, "\\sqrt": 1, "^": 1, "_": 1, "\\pmod": 1, "\\mathbb": 1}
_ARGUMENTS |= dict.fromkeys(ACCENTS, 1)
_BARE = commands("cdot pm mp le ge ne in cup cap to infty pi circ ldots triangle angle") | FUNCTIONS
_FIGURES = tuple("0123456789.")
_DISPLAY = re.compile(r"\\(?:begin|end)\{(?:align(?:ed)?|split|gather(?:ed)?|equation|(?:display)?math)\*?\}")
# Matches most short answers, which need no rewriting.
_PLAIN = re.compile(r"[A-Za-z0-9+\-()|!':/]*(?:[.=<>](?![.=])[A-Za-z0-9+\-()|!':/]*)*")
# Alignment marks next to a relation or at the start; outside matrices they mean nothing there.
_ALIGNMENT = re.compile(
    r"\A\s?&|(?<=[=<>])\s{0,9}&|&\s{0,9}(?=[=<>]|\\(?:le|ge|leq|geq|leqslant|geqslant|lt|gt|approx|equiv)(?![A-Za-z]))"
)
_DIGRAPHS = {"...": "\\ldots ", "<=": "\\le ", ">=": "\\ge ", " != ": "\\ne "}


class _Group(list["_Item"]):
    """What stands in a pair of braces, the last item first."""


# A token or a run of ordinary characters, a command with its arguments, a group, None for a blank, "" for a font.
_Item = str | list["_Item"] | None


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
    return _join(_attach_arguments(tokens))


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


def _attach_arguments(tokens: list[str]) -> list[_Item]:
    """Return the items of a text, the last one first; from the right, a command finds its arguments complete."""
    partners = match_braces(enumerate(tokens))
    closing = set(partners.values())
    levels: list[list[_Item]] = [[]]
    for index, token in reversed(list(enumerate(tokens))):
        items, following = levels[-1], tokens[index + 1] if index + 1 < len(tokens) else ""
        if token == "}":
            levels += [[]] if index in closing else []
        elif token == "{":
            if index in partners:
                group = _Group(levels.pop())
                # In \sin{x+y} the braces say what the argument is.
                if index and tokens[index - 1] in FUNCTIONS and group[-1:] != ["("]:
                    is_short = len(group) == 1 and isinstance(group[0], str) and group[0].isalnum()
                    group = group if is_short else _Group([")", *group, "("])
                levels[-1].append(group)
        elif token in _GAPS or token.isspace():
            items.append(None)
        elif token in _FONTS:
            items.append("")
        elif (token in _APPEARANCE and index + 1 in partners) or token in _SIZES:
            # `\left.` has no bracket.
            if token in _APPEARANCE or following == ".":
                items.pop()
        elif token == ",":
            if following == "\\,":
                items.pop()
            items.append(", " if following.isspace() else ",")
        elif token != "\\!":
            items.append(_take_arguments(token, items) if token in _ARGUMENTS or token[0] == "\\" else token)
    return levels[0]


def _take_arguments(command: str, items: list[_Item]) -> list[_Item]:
    """Return a command with its arguments, the last one first; they are taken from the items that follow it."""
    written: list[_Item] = [command]
    is_known = command in _ARGUMENTS or command in _BARE or not command[1:].isalpha()
    missing = _ARGUMENTS.get(command, 0) if is_known else len(items)
    while missing:
        while items and (items[-1] is None or (is_known and items[-1] == "")):
            items.pop()
        if not items or not (is_known or isinstance(items[-1], _Group)):
            break
        argument = items.pop()
        if command == "\\sqrt" == written[-1] and argument == "[":
            end = next((place for place in reversed(range(len(items))) if items[place] == "]"), None)
            written += ["[", *reversed(items[end:])]
            del items[end:]
            missing -= end is None
            continue
        if isinstance(argument, str) and argument[0] not in "\\^":
            # The first character of a run, or a comma with its blank.
            items += [argument[1:]] if argument[1:].strip() else []
            argument = argument[0]
        written += ["{", argument, "}"]
        missing -= 1
    return written[::-1]


def _join(items: list[_Item]) -> str:
    """Write items, the last one first, with a blank only in 1 2/3 and where a letter would be part of a command."""
    out = [""]
    is_gap = False
    while items:
        item = items.pop()
        if item is None or not isinstance(item, str):
            is_gap = is_gap or item is None
            items += item or ()
        elif item:
            before = out[-1]
            is_number = is_gap and before[-1:] in _FIGURES and item[0] in _FIGURES
            is_letter = before[:1] == "\\" and before[-1].isalpha() and item[0].isascii() and item[0].isalpha()
            out.append(f" {item}" if is_number or is_letter else item)
            is_gap = False
    return "".join(out)
