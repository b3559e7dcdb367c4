"""The values in an answer are read from sums down to numbers and names; what stands in brackets is any answer again."""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction
from typing import Protocol

from lm_eval_pruned.grading.matrices import read_matrix
from lm_eval_pruned.grading.tokens import FUNCTIONS, NAMES, TYPED, Tokens, UnreadableError, read_decimal
from lm_eval_pruned.grading.tree import Node, call, name, negative, number, power, product, quotient, total

MAX_POSTFIXES = 6

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
            or token in NAMES
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
        if token in NAMES:
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
        if word in TYPED:
            return self._named(TYPED[word])
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
