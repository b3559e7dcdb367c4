"""A reader of answers: recursive descent of bounded depth over a normal form, which must be read to its very end."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from fractions import Fraction
from typing import Protocol

from lm_eval_pruned.grading.limits import MAX_PARSED_CHARACTERS, MAX_POSTFIXES
from lm_eval_pruned.grading.read.tokens import Tokens, UnreadableError, read_decimal
from lm_eval_pruned.grading.read.tree import (
    Head,
    Node,
    call,
    flat,
    name,
    negative,
    number,
    power,
    product,
    quotient,
    total,
)
from lm_eval_pruned.grading.vocabulary import FUNCTIONS, NUMBER_WORDS, SYMBOLS, TYPED_SYMBOLS

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
    if len(form) > MAX_PARSED_CHARACTERS or (form.isalpha() and len(form) > 1 and form not in TYPED_SYMBOLS):
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


_UNKNOWN_FUNCTIONS = ("f", "g", "h", "F", "G")
_FIGURES = tuple("0123456789.")
# Behind anything else a number is a slip of the pen: x2 may be the square or the double.
_BEFORE_NUMBERS = (")", "]", "!", "\\pi", "i")
_SIGNS = {"+", "-", "\\pm", "\\mp"}
_PAIRS = {
    "\\lfloor": ("\\rfloor", "floor"),
    "\\lceil": ("\\rceil", "ceil"),
    "\\lvert": ("\\rvert", "abs"),
    "|": ("|", "abs"),
    "\\mid": ("\\mid", "abs"),
}


class Brackets(Protocol):
    """What reads the inside of brackets."""

    def bracket(self, opened: str) -> Node:
        """Read what an opening bracket begins, to its end."""

    def items(self, closers: Collection[str]) -> list[Node]:
        """Read members parted by commas, up to a closing bracket."""


class Expressions:
    """Sums, products, powers and functions, each method one rule of the grammar."""

    def __init__(self, tokens: Tokens, brackets: Brackets) -> None:
        self._tokens = tokens
        self._brackets = brackets

    def sum(self) -> Node:
        """Read terms with their signs, as many as there are."""
        self._tokens.descend()
        terms: list[Node] = []
        while True:
            sign = self._tokens.take() if self._tokens.next in _SIGNS else ""
            while sign in ("+", "-") and self._tokens.next in ("+", "-"):
                sign = "+" if self._tokens.take() == sign else "-"
            term = self._term()
            if sign == "-" and len(terms) == 1 and term.head in ("set", "bracket") and terms[0].head == "name":
                terms = [Node("difference", (terms[0], term))]
                break
            match sign:
                case "-":
                    term = negative(term)
                case "\\pm" | "\\mp":
                    term = Node("plus-minus", (term,), label=sign)
            terms.append(term)
            if self._tokens.next not in _SIGNS:
                break
        self._tokens.ascend()
        return total(*terms)

    def _term(self) -> Node:
        node = self._factor()
        while True:
            if self._tokens.accept("\\cdot"):
                node = product(node, self._signed_factor())
            elif self._tokens.accept("/"):
                node = quotient(node, self._signed_factor())
            elif self._begins_factor():
                node = self._multiply(node)
            else:
                return node

    def _signed_factor(self) -> Node:
        return negative(self._factor()) if self._tokens.accept("-") else self._factor()

    def _multiply(self, node: Node) -> Node:
        """Multiply by what stands beside, unless it is the fraction of a mixed number."""
        is_whole = node.head == "number" and node.step is None and node.value.denominator == 1
        is_fraction = self._tokens.next in ("\\frac", " ")
        self._tokens.accept(" ")
        if self._tokens.next[:1] in _FIGURES and not is_fraction and self._tokens.last not in _BEFORE_NUMBERS:
            raise UnreadableError("a number behind a factor")
        beside = self._factor()
        if is_whole and is_fraction:
            if self._tokens.last != "}":
                beside = quotient(beside, self._factor()) if self._tokens.accept("/") else _refuse("two numbers")
            if (part := _proper_fraction(beside)) is not None:
                return number(node.value + part)
        if node.head == "name" and len(node.label) == 1 and node.label.isupper() and beside.head == "bracket":
            # A point P(3, 4), or the number C(9, 4) of choices.
            return call(node.label, *beside.parts)
        if beside.head == "matrix":
            rows = (Node("row", tuple(product(node, cell) for cell in row.parts)) for row in beside.parts)
            return Node("matrix", tuple(rows))
        return product(node, beside)

    def _begins_factor(self) -> bool:
        token = self._tokens.next
        if token == "|":
            return not self._tokens.bars
        return bool(token) and (
            token[0].isalnum()
            or token
            in (
                "(",
                "[",
                "\\{",
                " ",
                "\\frac",
                "\\sqrt",
                "\\binom",
                "\\text",
                "\\hat",
                "\\lfloor",
                "\\lceil",
                "\\lvert",
            )
            or token in FUNCTIONS
            or token in SYMBOLS
            or token in ("\\mathbb", "\\begin")
            or token[0] == "."
        )

    def _factor(self) -> Node:
        """Read a base with what stands behind it: powers, factorials, degrees."""
        node = self._base()
        for _ in range(MAX_POSTFIXES):
            if self._tokens.accept_all("!", "!"):
                node = call("double factorial", node)
            elif self._tokens.accept("!"):
                node = call("factorial", node)
                if self._tokens.next == "!":
                    raise UnreadableError("three factorials")
            elif self._tokens.accept("^"):
                self._tokens.expect("{")
                if self._tokens.accept("\\circ"):
                    node = product(node, name("\\pi"), number(Fraction(1, 180)))
                else:
                    node = power(node, self.sum())
                self._tokens.expect("}")
            else:
                return node
        raise UnreadableError("too much behind a value")

    def _base(self) -> Node:
        token = self._tokens.take()
        match token:
            case "(" | "[" | "\\{" | "\\langle":
                return self._brackets.bracket(token)
            case "|" | "\\mid" | "\\lvert" | "\\lfloor" | "\\lceil":
                return self._pair(token)
            case "\\frac":
                return quotient(self._group(), self._group())
            case "\\binom":
                return call("binomial", self._group(), self._group())
            case "\\sqrt":
                degree = self._option()
                return (
                    power(self._group(), quotient(number(1), degree))
                    if degree == number(2)
                    else call("root", self._group(), degree)
                )
            case "\\text":
                return name(self._letters())
            case "\\hat":
                return name(f"\\hat{{{self._letters()}}}")
            case "\\mathbb":
                return name(f"\\mathbb{self._letters()}")
            case "\\begin":
                return read_matrix(self._tokens, self.sum)
        if token[:1] in _FIGURES:
            return read_decimal(token)
        if token in FUNCTIONS:
            return self._function(token[1:])
        if token in SYMBOLS:
            return self._named(token)
        if token in _UNKNOWN_FUNCTIONS and self._tokens.next == "(":
            return call(token, *self._arguments())
        if token.isalpha():
            return self._word(token)
        raise UnreadableError(f"no value begins with {token!r}")

    def _group(self) -> Node:
        self._tokens.expect("{")
        node = self.sum()
        self._tokens.expect("}")
        return node

    def _letters(self) -> str:
        self._tokens.expect("{")
        word = self._tokens.take()
        self._tokens.expect("}")
        if not word.isalpha():
            raise UnreadableError("no letters")
        return word

    def _option(self) -> Node:
        if not self._tokens.accept("["):
            return number(2)
        node = self.sum()
        self._tokens.expect("]")
        return node

    def _pair(self, opened: str) -> Node:
        closed, function = _PAIRS[opened]
        self._tokens.bars += opened == "|"
        inner = self.sum()
        self._tokens.expect(closed)
        self._tokens.bars -= opened == "|"
        return call(function, inner)

    def _function(self, function: str) -> Node:
        """Read a function with its base and power, and an argument with or without parentheses."""
        base = self._subscript() if function == "log" else None
        exponent = None
        if self._tokens.accept("^"):
            self._tokens.expect("{")
            exponent = self.sum()
            self._tokens.expect("}")
        arguments = self._arguments()
        if function == "log" and base is not None:
            node = quotient(call("ln", *arguments), call("ln", base))
        elif (
            exponent is not None
            and exponent.head == "number"
            and exponent.value == -1
            and function in ("sin", "cos", "tan")
        ):
            return call(f"arc{function}", *arguments)
        else:
            node = call(function, *arguments)
        return node if exponent is None else power(node, exponent)

    def _subscript(self) -> Node | None:
        if not self._tokens.accept("_"):
            return None
        return self._group()

    def _arguments(self) -> list[Node]:
        self._tokens.accept(" ")
        if self._tokens.accept("("):
            arguments = self._brackets.items(")")
            self._tokens.expect(")")
            return arguments
        self._tokens.descend()
        factors = [self._factor()]
        self._tokens.ascend()
        while self._begins_factor() and self._tokens.next not in FUNCTIONS and self._tokens.next not in ("(", "["):
            factors.append(self._factor())
        return [product(*factors)]

    def _word(self, word: str) -> Node:
        """Read a function or a constant typed without its backslash, a letter, or a product of a few letters."""
        if f"\\{word}" in FUNCTIONS:
            return self._function(word)
        if word == "sqrt":
            self._tokens.expect("(")
            node = self.sum()
            self._tokens.expect(")")
            return power(node, number(Fraction(1, 2)))
        if word in TYPED_SYMBOLS:
            return self._named(TYPED_SYMBOLS[word])
        if len(word) > 1:
            raise UnreadableError(f"the word {word!r}")
        return self._named(word)

    def _named(self, label: str) -> Node:
        """Read what may follow a name: primes, and a subscript, which is part of it."""
        while self._tokens.accept("'"):
            label += "'"
        if self._tokens.accept("_"):
            self._tokens.expect("{")
            inner = []
            while self._tokens.next and self._tokens.next not in ("{", "}"):
                inner.append(self._tokens.take())
            self._tokens.expect("}")
            label += f"_{{{''.join(inner)}}}"
        return name(label)


def _refuse(why: str) -> Node:
    raise UnreadableError(why)


def _proper_fraction(node: Node) -> Fraction | None:
    r"""Return the value of `\frac{a}{b}` with whole numbers 0 < a < b, else None."""
    match node:
        case Node("*", (Node("number") as above, Node("^", (Node("number") as below, _)))):
            is_proper = 0 < above.value < below.value and above.value.denominator == below.value.denominator == 1
            return above.value / below.value if is_proper else None
    return None


_MATRICES = ("matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array", "vmatrix")


def read_matrix(tokens: Tokens, read_cell: Callable[[], Node]) -> Node:
    r"""Read what follows `\begin`, up to the end of that environment; of a `vmatrix`, the determinant.

    Raises:
        UnreadableError: it is no matrix.
    """
    kind = _environment(tokens)
    if kind not in _MATRICES:
        raise UnreadableError(f"environment {kind}")
    if kind == "array":
        while tokens.take() not in ("}", ""):
            pass
    rows: list[Node] = []
    while True:
        cells = [read_cell()]
        while tokens.accept("&"):
            cells.append(read_cell())
        rows.append(Node("row", tuple(cells)))
        if not tokens.accept("\\\\") or tokens.next == "\\end":
            break
    tokens.expect("\\end")
    if _environment(tokens) != kind:
        raise UnreadableError("another environment ends")
    matrix = Node("matrix", tuple(rows))
    return call("det", matrix) if kind == "vmatrix" else matrix


def _environment(tokens: Tokens) -> str:
    tokens.expect("{")
    word = tokens.take()
    tokens.expect("}")
    return word
