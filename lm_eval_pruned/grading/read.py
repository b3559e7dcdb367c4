"""A reader of answers: recursive descent of bounded depth over a normal form, which must be read to its very end."""

from __future__ import annotations

import re
from collections.abc import Collection

from lm_eval_pruned.grading.expressions import Expressions
from lm_eval_pruned.grading.tokens import NUMBER_WORDS, TYPED, Tokens, UnreadableError
from lm_eval_pruned.grading.tree import Head, Node, flat, number

MAX_CHARACTERS = 2000

_RELATIONS = {
    "=": "=", "<": "<", ">": ">", "\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\in": "in", "\\notin": "not in",
    "\\approx": "=", "\\equiv": "==", "\\subset": "sub", "\\subseteq": "sub", "\\to": "to", "\\sim": "~",
}  # fmt: skip
_SET_OPERATIONS: dict[str, Head] = {
    "\\cup": "union",
    "\\cap": "intersection",
    "\\setminus": "difference",
    "\\backslash": "difference",
}
_SUCH_THAT = (":", "|", "\\mid")
_REALS = ((), ("\\in", "\\mathbb", "{", "R", "}"))
# What is said in words that has a sign of its own.
_NOTHING = "nosolution nosolutions norealsolution norealsolutions therearenosolutions none emptyset theemptyset"
_ALL = "allrealnumbers allreals allreal realnumbers setofallrealnumbers thesetofallrealnumbers anyrealnumber"
_MEANT = {
    **dict.fromkeys(_NOTHING.split(), "\\emptyset"),
    **dict.fromkeys(_ALL.split(), "\\mathbb{R}"),
    **dict.fromkeys(("dne", "doesnotexist", "thelimitdoesnotexist", "limitdoesnotexist"), "\\text{doesnotexist}"),
}
# Open ends as France writes them; only where a form begins or ends so can they be meant.
_TURNED = re.compile(r"(?P<open>[\]\[])(?P<inside>[^\[\]()=]{1,80}, [^\[\]()=]{1,80})(?P<close>[\[\]])")
_CLOSERS = {"(": (")", "]"), "[": (")", "]"), "\\{": ("\\}",), "\\langle": ("\\rangle",)}


def read(form: str) -> Node | None:
    r"""Return what a normal form says, or None where it cannot be read to its very end.

    Example:
        >>> read(r"\frac{1}{2}").parts[0].value, read("(1, 2)").head, read("1<x<2").label
        (Fraction(1, 1), 'bracket', '< <')
        >>> read("forty-two").value, read("evelyn"), read("1+")
        (Fraction(42, 1), None, None)
    """
    if form in NUMBER_WORDS:
        return number(NUMBER_WORDS[form])
    form = _MEANT.get(form, form)
    if len(form) > MAX_CHARACTERS or (form.isalpha() and len(form) > 1 and form not in TYPED):
        return None
    if form[:1] == "]" or form[-1:] == "[":
        form = _TURNED.sub(_turned, form)
    try:
        tokens = Tokens(form)
        node = _Answers(tokens).answer()
        tokens.end()
    except (UnreadableError, ZeroDivisionError):
        return None
    return node


def _turned(interval: re.Match[str]) -> str:
    low, high = ("(" if interval["open"] == "]" else "["), (")" if interval["close"] == "[" else "]")
    return f"{low}{interval['inside']}{high}"


class _Answers:
    """Lists, relations and sets, down to the values they are made of."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._values = Expressions(tokens, self)

    def answer(self) -> Node:
        items = self.items(())
        return items[0] if len(items) == 1 else Node("list", tuple(items))

    def items(self, closers: Collection[str]) -> list[Node]:
        """Read members parted by commas; between brackets there may be none."""
        self._tokens.descend()
        items = [] if closers and self._tokens.next in closers else [self.claim()]
        while items and (self._tokens.accept(",") or self._tokens.accept(";")):
            items.append(self.claim())
        self._tokens.ascend()
        return items

    def variable_such_that(self) -> bool:
        r"""Take `x \mid` or `x \in \mathbb{R} \mid`, if that comes next."""
        variable = self._tokens.next
        return variable.isalpha() and any(
            self._tokens.accept_all(variable, *reals, such_that) for reals in _REALS for such_that in _SUCH_THAT
        )

    def claim(self) -> Node:
        """Read relations joined by "or", and tighter by "and"."""
        parts = [self.conjunction()]
        while self._tokens.accept("\\lor"):
            parts.append(self.conjunction())
        return Node("or", tuple(parts)) if len(parts) > 1 else parts[0]

    def conjunction(self) -> Node:
        parts = [self.relation()]
        while self._tokens.accept("\\land"):
            parts.append(self.relation())
        return Node("and", tuple(parts)) if len(parts) > 1 else parts[0]

    def relation(self) -> Node:
        sides, signs = [self.sets()], []
        while self._tokens.next in _RELATIONS:
            signs.append(_RELATIONS[self._tokens.take()])
            sides.append(self.sets())
        return Node("relation", tuple(sides), label=" ".join(signs)) if signs else sides[0]

    def sets(self) -> Node:
        node = self.ratio()
        while self._tokens.next in _SET_OPERATIONS:
            node = flat(_SET_OPERATIONS[self._tokens.take()], node, self.ratio())
        return node

    def ratio(self) -> Node:
        parts = [self._values.sum()]
        while self._tokens.accept(":"):
            parts.append(self._values.sum())
        return Node("ratio", tuple(parts)) if len(parts) > 1 else parts[0]

    def bracket(self, opened: str) -> Node:
        bars, self._tokens.bars = self._tokens.bars, 0
        if opened == "\\{" and self.variable_such_that():
            node = self.claim()
            self._tokens.expect("\\}")
        else:
            items = self.items(_CLOSERS[opened])
            closed = self._tokens.expect(*_CLOSERS[opened])
            if opened == "\\{":
                node = Node("set", tuple(items))
            elif len(items) == 1 and ((opened, closed) == ("(", ")") or items[0].head == "matrix"):
                (node,) = items
            else:
                node = Node("bracket", tuple(items), label="()" if opened == "\\langle" else opened + closed)
        self._tokens.bars = bars
        return node
