"""A reader of answers: recursive descent of bounded depth over a normal form, which must be read to its very end."""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction

from lm_eval_pruned.grading.tokens import FUNCTIONS, NAMES, TYPED, UnreadableError, read_decimal, tokenize
from lm_eval_pruned.grading.tree import Head, Node, call, flat, name, negative, number, power, product, quotient, total

MAX_CHARACTERS = 2000
MAX_DEPTH = 40
MAX_POSTFIXES = 6

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
_SUCH_THAT = ([":"], ["|"], ["\\mid"])
_MATRICES = ("matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array", "vmatrix")
_UNKNOWN_FUNCTIONS = ("f", "g", "h", "F", "G")
_FIGURES = tuple("0123456789.")
_SIGNS = {"+", "-", "\\pm", "\\mp"}
_CLOSERS = {"(": (")", "]"), "[": (")", "]"), "\\{": ("\\}",), "\\langle": ("\\rangle",)}
_PAIRS = {
    "\\lfloor": ("\\rfloor", "floor"),
    "\\lceil": ("\\rceil", "ceil"),
    "\\lvert": ("\\rvert", "abs"),
    "|": ("|", "abs"),
}


def read(form: str) -> Node | None:
    r"""Return what a normal form says, or None where it cannot be read to its very end.

    Example:
        >>> read(r"\frac{1}{2}").parts[0].value, read("(1, 2)").head, read("1<x<2").label
        (Fraction(1, 1), 'bracket', '< <')
        >>> read("evelyn"), read("1+")
        (None, None)
    """
    if len(form) > MAX_CHARACTERS or (form.isalpha() and len(form) > 1):
        return None
    try:
        reader = _Reader(form)
        node = reader.answer()
        reader.end()
    except (UnreadableError, ZeroDivisionError):
        return None
    return node


class _Reader:
    """The tokens of a form and how far they were read."""

    def __init__(self, form: str) -> None:
        self._tokens = tokenize(form)
        self._place = 0
        self._depth = 0
        self._bars = 0

    # Tokens

    @property
    def next(self) -> str:
        return self._tokens[self._place] if self._place < len(self._tokens) else ""

    def take(self) -> str:
        token = self.next
        self._place += 1
        return token

    def accept(self, token: str) -> bool:
        found = self.next == token
        self._place += found
        return found

    def expect(self, *tokens: str) -> str:
        if self.next not in tokens or not self.next:
            raise UnreadableError(f"expected {tokens}, found {self.next!r}")
        return self.take()

    def end(self) -> None:
        if self.next:
            raise UnreadableError(f"left over: {self.next!r}")

    # Collections and relations

    def answer(self) -> Node:
        items = self.items(())
        return items[0] if len(items) == 1 else Node("list", tuple(items))

    def items(self, closers: Collection[str]) -> list[Node]:
        """Read members parted by commas; between brackets there may be none."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnreadableError("nested too deeply")
        items = [] if closers and self.next in closers else [self.relation()]
        while items and (self.accept(",") or self.accept(";")):
            items.append(self.relation())
        self._depth -= 1
        return items

    def relation(self) -> Node:
        sides, signs = [self.sets()], []
        while self.next in _RELATIONS:
            signs.append(_RELATIONS[self.take()])
            sides.append(self.sets())
        return Node("relation", tuple(sides), label=" ".join(signs)) if signs else sides[0]

    def sets(self) -> Node:
        node = self.ratio()
        while self.next in _SET_OPERATIONS:
            node = flat(_SET_OPERATIONS[self.take()], node, self.ratio())
        return node

    def ratio(self) -> Node:
        parts = [self.sum()]
        while self.accept(":"):
            parts.append(self.sum())
        return Node("ratio", tuple(parts)) if len(parts) > 1 else parts[0]

    # Values

    def sum(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnreadableError("nested too deeply")
        terms: list[Node] = []
        while True:
            sign = self.take() if self.next in _SIGNS else ""
            while sign in ("+", "-") and self.next in ("+", "-"):
                sign = "+" if self.take() == sign else "-"
            term = self.term()
            match sign:
                case "-":
                    term = negative(term)
                case "\\pm" | "\\mp":
                    term = Node("plus-minus", (term,), label=sign)
            terms.append(term)
            if self.next not in _SIGNS:
                break
        self._depth -= 1
        return total(*terms)

    def term(self) -> Node:
        node = self.factor()
        while True:
            if self.accept("\\cdot"):
                node = product(node, self.signed_factor())
            elif self.accept("/"):
                node = quotient(node, self.signed_factor())
            elif self.begins_factor():
                node = self.multiply(node)
            else:
                return node

    def signed_factor(self) -> Node:
        return negative(self.factor()) if self.accept("-") else self.factor()

    def multiply(self, node: Node) -> Node:
        """Multiply by what stands beside, unless it is the fraction of a mixed number."""
        is_whole = node.head == "number" and node.step is None and node.value.denominator == 1
        is_fraction = self.next in ("\\frac", " ")
        self.accept(" ")
        if self.next[:1] in _FIGURES and not is_fraction and self._tokens[self._place - 1] not in (")", "]", "!"):
            raise UnreadableError("a number behind a factor")
        beside = self.factor()
        if is_whole and is_fraction:
            if self._tokens[self._place - 1] != "}":
                beside = quotient(beside, self.factor()) if self.accept("/") else _refuse("two numbers")
            if (part := _proper_fraction(beside)) is not None:
                return number(node.value + part)
        if beside.head == "matrix":
            rows = (Node("row", tuple(product(node, cell) for cell in row.parts)) for row in beside.parts)
            return Node("matrix", tuple(rows))
        return product(node, beside)

    def begins_factor(self) -> bool:
        token = self.next
        if token == "|":
            return not self._bars
        return bool(token) and (
            token[0].isalnum()
            or token
            in ("(", "[", "\\{", " ", "\\frac", "\\sqrt", "\\binom", "\\text", "\\lfloor", "\\lceil", "\\lvert")
            or token in FUNCTIONS
            or token in NAMES
            or token in ("\\mathbb", "\\begin")
            or token[0] == "."
        )

    def factor(self) -> Node:
        """Read a base with what stands behind it: powers, factorials, degrees."""
        node = self.base()
        for _ in range(MAX_POSTFIXES):
            if self.accept("!"):
                node = call("factorial", node)
                if self.next == "!":
                    raise UnreadableError("a double factorial")
            elif self.accept("^"):
                self.expect("{")
                if self.accept("\\circ"):
                    node = product(node, name("\\pi"), number(Fraction(1, 180)))
                else:
                    node = power(node, self.sum())
                self.expect("}")
            else:
                return node
        raise UnreadableError("too much behind a value")

    def base(self) -> Node:
        token = self.take()
        match token:
            case "(" | "[" | "\\{" | "\\langle":
                return self.bracket(token)
            case "|" | "\\lvert" | "\\lfloor" | "\\lceil":
                return self.pair(token)
            case "\\frac":
                return quotient(self.group(), self.group())
            case "\\binom":
                return call("binomial", self.group(), self.group())
            case "\\sqrt":
                degree = self.option()
                return power(self.group(), quotient(number(1), degree))
            case "\\text":
                return name(self.letters())
            case "\\mathbb":
                return name(f"\\mathbb{self.letters()}")
            case "\\begin":
                return self.matrix()
        if token[:1] in _FIGURES:
            return read_decimal(token)
        if token in FUNCTIONS:
            return self.function(token[1:])
        if token in NAMES:
            return self.named(token)
        if token in _UNKNOWN_FUNCTIONS and self.next == "(":
            return call(token, *self.arguments())
        if token.isalpha():
            return self.word(token)
        raise UnreadableError(f"no value begins with {token!r}")

    def group(self) -> Node:
        self.expect("{")
        node = self.sum()
        self.expect("}")
        return node

    def letters(self) -> str:
        self.expect("{")
        word = self.take()
        self.expect("}")
        if not word.isalpha():
            raise UnreadableError("no letters")
        return word

    def option(self) -> Node:
        if not self.accept("["):
            return number(2)
        node = self.sum()
        self.expect("]")
        return node

    def bracket(self, opened: str) -> Node:
        bars, self._bars = self._bars, 0
        if opened == "\\{" and self.next.isalpha() and self._tokens[self._place + 1 : self._place + 2] in _SUCH_THAT:
            self._place += 2
            node = self.relation()
            self.expect("\\}")
        else:
            items = self.items(_CLOSERS[opened])
            closed = self.expect(*_CLOSERS[opened])
            if opened == "\\{":
                node = Node("set", tuple(items))
            elif len(items) == 1 and ((opened, closed) == ("(", ")") or items[0].head == "matrix"):
                (node,) = items
            else:
                node = Node("bracket", tuple(items), label="()" if opened == "\\langle" else opened + closed)
        self._bars = bars
        return node

    def pair(self, opened: str) -> Node:
        closed, function = _PAIRS[opened]
        self._bars += opened == "|"
        inner = self.sum()
        self.expect(closed)
        self._bars -= opened == "|"
        return call(function, inner)

    def matrix(self) -> Node:
        kind = self.environment()
        if kind not in _MATRICES:
            raise UnreadableError(f"environment {kind}")
        if kind == "array":
            while self.take() not in ("}", ""):
                pass
        rows: list[Node] = []
        while True:
            cells = [self.sum()]
            while self.accept("&"):
                cells.append(self.sum())
            rows.append(Node("row", tuple(cells)))
            if not self.accept("\\\\") or self.next == "\\end":
                break
        self.expect("\\end")
        if self.environment() != kind:
            raise UnreadableError("another environment ends")
        matrix = Node("matrix", tuple(rows))
        return call("det", matrix) if kind == "vmatrix" else matrix

    def environment(self) -> str:
        self.expect("{")
        word = self.take()
        self.expect("}")
        return word

    def function(self, function: str) -> Node:
        """Read a function with its base and power, and an argument with or without parentheses."""
        base = self.subscript() if function == "log" else None
        exponent = None
        if self.accept("^"):
            self.expect("{")
            exponent = self.sum()
            self.expect("}")
        arguments = self.arguments()
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

    def subscript(self) -> Node | None:
        if not self.accept("_"):
            return None
        return self.group()

    def arguments(self) -> list[Node]:
        self.accept(" ")
        if self.accept("("):
            arguments = self.items(")")
            self.expect(")")
            return arguments
        factors = [self.factor()]
        while self.begins_factor() and self.next not in FUNCTIONS and self.next not in ("(", "["):
            factors.append(self.factor())
        return [product(*factors)]

    def word(self, word: str) -> Node:
        """Read a function or a constant typed without its backslash, a letter, or a product of a few letters."""
        if f"\\{word}" in FUNCTIONS:
            return self.function(word)
        if word == "sqrt":
            self.expect("(")
            node = self.sum()
            self.expect(")")
            return power(node, number(Fraction(1, 2)))
        if word in TYPED:
            return self.named(TYPED[word])
        if len(word) > 1:
            raise UnreadableError(f"the word {word!r}")
        return self.named(word)

    def named(self, label: str) -> Node:
        """Read what may follow a name: primes, and a subscript, which is part of it."""
        while self.accept("'"):
            label += "'"
        if self.accept("_"):
            self.expect("{")
            inner = []
            while self.next and self.next not in ("{", "}"):
                inner.append(self.take())
            self.expect("}")
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
