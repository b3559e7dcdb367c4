"""Recursive-descent parser of answers in normal form: lists, relations, sets, sums, products, powers, functions.

The depth of recursion is bounded, and an answer that cannot be parsed to its very end is not parsed at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from lm_eval_pruned.grading.limits import (
    MAX_DECIMAL_EXPONENT,
    MAX_NUMBER_CHARACTERS,
    MAX_PARSED_CHARACTERS,
    MAX_POSTFIXES,
)
from lm_eval_pruned.grading.read.decimal import read_digits
from lm_eval_pruned.grading.read.tokens import Tokens, UnreadableError
from lm_eval_pruned.grading.read.tree import (
    INFINITY,
    MINUS_INFINITY,
    Head,
    Node,
    call,
    flat,
    has_name,
    name,
    negative,
    number,
    power,
    product,
    quotient,
    relation,
    total,
)
from lm_eval_pruned.grading.vocabulary import ACCENTS, FUNCTIONS, NUMBER_WORDS, SYMBOLS, TYPED_SYMBOLS

_RELATIONS = {
    "=": "=", "<": "<", ">": ">", "\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\in": "in", "\\notin": "not in",
    "\\approx": "=", "\\equiv": "==", "\\subset": "sub", "\\subseteq": "sub", "\\to": "to", "\\sim": "~",
}  # fmt: skip
_SET_OPERATIONS: dict[str, Head] = {
    "\\cup": "union", "\\cap": "intersection", "\\setminus": "difference", "\\backslash": "difference",
}  # fmt: skip
_CLOSING_BRACKETS = {"(": (")", "]"), "[": (")", "]"), "\\{": ("\\}",), "\\langle": ("\\rangle",)}
_CLOSING_BARS = {
    "|": ("|", "abs"), "\\mid": ("\\mid", "abs"), "\\lvert": ("\\rvert", "abs"), "\\lfloor": ("\\rfloor", "floor"),
    "\\lceil": ("\\rceil", "ceil"),
}  # fmt: skip
_SIGNS = {"+", "-", "\\pm", "\\mp"}
_UNKNOWN_FUNCTIONS = ("f", "g", "h", "F", "G")
_DIFFERENCES = (("name", "set"), ("name", "bracket"), ("set", "set"), ("bracket", "set"))
_INVERTIBLE = ("sin", "cos", "tan", "sinh", "cosh", "tanh")
_FIGURES = tuple("0123456789.")
_FACTOR_STARTS = FUNCTIONS | SYMBOLS | {"(", "[", "\\{", " ", "\\lfloor", "\\lceil", "\\lvert"}
_FACTOR_STARTS |= {"\\frac", "\\sqrt", "\\binom", "\\text", *ACCENTS, "\\mathbb", "\\begin"}
# After anything else a number as a factor is a typing error: x2 may be the square or the double.
_BEFORE_NUMBERS = (")", "]", "!", "\\pi", "i")
_MATRICES = ("matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array")

# Phrases with a symbol of their own, without blanks, as normal forms are.
_NO_SOLUTION = "nosolution nosolutions norealsolution norealsolutions therearenosolutions none emptyset theemptyset"
_ALL_REALS = "allrealnumbers allreals allreal realnumbers setofallrealnumbers thesetofallrealnumbers anyrealnumber"
_PHRASES = {
    **dict.fromkeys(_NO_SOLUTION.split(), "\\emptyset"),
    **dict.fromkeys(_ALL_REALS.split(), "\\mathbb{R}"),
    **dict.fromkeys(("infinite", "infinitelymany", "infinitelymanysolutions"), "\\infty"),
    **dict.fromkeys(("dne", "doesnotexist", "thelimitdoesnotexist", "limitdoesnotexist"), "\\text{doesnotexist}"),
}
_FRACTION = re.compile(r"(-?)\\frac\{([0-9]{1,40})\}\{([0-9]{1,40})\}")
# As a whole answer, 2e-3 is a number and not a multiple of e.
_SCIENTIFIC = re.compile(r"([+-]?[0-9.]+)[eE]([+-]?[0-9]{1,4})")
# A set that a condition defines, \{x \mid x>2\}, is read as the condition.
_SUCH_THAT = re.compile(r"\\\{[A-Za-z](?:\\in ?\\mathbb\{R\})?(?::|\||\\mid ?)((?:(?!\\\}).)+)\\\}")
# Open intervals in French notation, ]1, 2[; only a form that begins or ends like this can be meant so.
_FRENCH_OPENING = re.compile(r"\](?=[^\[\]()=]{1,80}, [^\[\]()=]{1,80}[\[\]])")
_FRENCH_CLOSING = re.compile(r"(, [^\[\]()=]{1,80})\[")


def read(form: str) -> Node | None:
    r"""Parse a normal form into a tree, or return None if it cannot be parsed to its very end.

    Example:
        >>> read(r"\frac{1}{2}").value, read("(1, 2)").head, read("1<x<2").label
        (Fraction(1, 2), 'bracket', '< <')
        >>> read("forty-two").value, read("evelyn"), read("1+")
        (Fraction(42, 1), None, None)
    """
    if form in NUMBER_WORDS:
        return number(NUMBER_WORDS[form])
    form = _PHRASES.get(form, form)
    if (fraction := _FRACTION.fullmatch(form)) and int(fraction[3]):
        return number(Fraction(int(fraction[1] + fraction[2]), int(fraction[3])))
    if scientific := _SCIENTIFIC.fullmatch(form):
        form = f"{scientific[1]}\\cdot10^{{{scientific[2]}}}"
    if len(form) > MAX_PARSED_CHARACTERS or (form.isalpha() and len(form) > 1 and form not in TYPED_SYMBOLS):
        return None
    form = _SUCH_THAT.sub(r"(\1)", form)
    if form[:1] == "]" or form[-1:] == "[":
        form = _FRENCH_CLOSING.sub(r"\1)", _FRENCH_OPENING.sub("(", form))
    try:
        # Most answers are whole numbers.
        return _parse_number(form) if form.isascii() and form.isdigit() else _Parser(Tokens(form)).parse_answer()
    except (UnreadableError, ZeroDivisionError):
        return None


class _Parser:
    """The grammar, from lists down to numbers and names; each method parses one rule and takes its tokens.

    Every method raises UnreadableError where the tokens do not fit its rule.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def parse_answer(self) -> Node:
        """Parse all tokens: one answer, or a list without brackets."""
        items = self._parse_items(())
        self._tokens.expect_end()
        return items[0] if len(items) == 1 else Node("list", tuple(items))

    # Lists, logic, relations and sets

    def _parse_items(self, closing: tuple[str, ...]) -> list[Node]:
        """Parse items separated by commas; before a closing bracket there may be none."""
        self._tokens.descend()
        items = [] if closing and self._tokens.next in closing else [self._parse_disjunction()]
        while items and (self._tokens.accept(",") or self._tokens.accept(";")):
            items.append(self._parse_disjunction())
        self._tokens.ascend()
        return items

    def _parse_disjunction(self) -> Node:
        return self._parse_joined("or", "\\lor", self._parse_conjunction)

    def _parse_conjunction(self) -> Node:
        return self._parse_joined("and", "\\land", self._parse_relation)

    def _parse_joined(self, head: Head, sign: str, parse_part: Callable[[], Node]) -> Node:
        parts = [parse_part()]
        while self._tokens.accept(sign):
            parts.append(parse_part())
        return Node(head, tuple(parts)) if len(parts) > 1 else parts[0]

    def _parse_relation(self) -> Node:
        sides, signs = [self._parse_set_operations()], []
        while self._tokens.next in _RELATIONS:
            signs.append(_RELATIONS[self._tokens.take()])
            sides.append(self._parse_set_operations())
        return relation(sides, signs) if signs else sides[0]

    def _parse_set_operations(self) -> Node:
        node = self._parse_ratio()
        while self._tokens.next in _SET_OPERATIONS:
            node = flat(_SET_OPERATIONS[self._tokens.take()], node, self._parse_ratio())
        return node

    def _parse_ratio(self) -> Node:
        return self._parse_joined("ratio", ":", self._parse_sum)

    def _parse_bracket(self, opening: str) -> Node:
        """Parse what follows an opening bracket: a set, a tuple, an interval, or a value in parentheses."""
        outer_bars, self._tokens.open_bars = self._tokens.open_bars, 0
        items = self._parse_items(_CLOSING_BRACKETS[opening])
        closing = self._tokens.expect(*_CLOSING_BRACKETS[opening])
        if opening == "\\{":
            node = Node("set", tuple(items))
        elif len(items) == 1 and opening + closing in ("()", "[]"):
            (node,) = items
        else:
            # No number is infinite: [2, \infty] is [2, \infty).
            closing = ")" if opening == "\\langle" or items[-1:] == [INFINITY] else closing
            opening = "(" if opening == "\\langle" or items[:1] == [MINUS_INFINITY] else opening
            node = Node("bracket", tuple(items), label=opening + closing)
        self._tokens.open_bars = outer_bars
        return node

    # Sums and products

    def _parse_sum(self) -> Node:
        self._tokens.descend()
        terms: list[Node] = []
        while True:
            sign = self._tokens.take() if self._tokens.next in _SIGNS else ""
            while sign in ("+", "-") and self._tokens.next in ("+", "-"):
                sign = "+" if self._tokens.take() == sign else "-"
            term = self._parse_term()
            if sign == "-" and len(terms) == 1 and (terms[0].head, term.head) in _DIFFERENCES:
                # The difference of two sets, as in R - {1}.
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

    def _parse_term(self) -> Node:
        node = self._parse_factor()
        while True:
            if self._tokens.accept("\\cdot"):
                node = _scale(node, self._parse_signed_factor())
            elif self._tokens.accept("/"):
                node = quotient(node, self._parse_signed_factor())
            elif self._is_factor_next():
                node = self._parse_implicit_product(node)
            else:
                return node

    def _parse_signed_factor(self) -> Node:
        return negative(self._parse_factor()) if self._tokens.accept("-") else self._parse_factor()

    def _parse_implicit_product(self, left: Node) -> Node:
        """Parse the factor after `left`, with no sign between; a fraction after a whole number is a mixed number."""
        is_whole = left.head == "number" and left.step is None and left.value.denominator == 1
        is_fraction = self._tokens.next in ("\\frac", " ")
        self._tokens.accept(" ")
        are_powers = self._tokens.last == "}" and self._tokens.after_next == "^"
        is_known = is_fraction or are_powers or self._tokens.last in _BEFORE_NUMBERS
        is_doubtful = self._tokens.next[:1] in _FIGURES and not is_known
        right = self._parse_factor()
        # In N2^{-N} the number is the base of a power.
        if is_doubtful and not (right.head == "^" and has_name(right.parts[1])):
            raise UnreadableError("a number after a factor")
        if is_whole and is_fraction:
            if self._tokens.last != "}":
                self._tokens.expect("/")
                right = quotient(right, self._parse_factor())
            if (fraction := _proper_fraction(right)) is not None:
                return number(left.value + fraction)
        if left.head == "name" and len(left.label) == 1 and left.label.isupper() and right.head == "bracket":
            # A point P(3, 4), or the binomial coefficient C(9, 4).
            return call(left.label, *right.parts)
        if right.head == "matrix":
            rows = (Node("row", tuple(product(left, cell) for cell in row.parts)) for row in right.parts)
            return Node("matrix", tuple(rows))
        return product(left, right)

    def _is_factor_next(self) -> bool:
        token = self._tokens.next
        if token == "|":
            return not self._tokens.open_bars
        return bool(token) and (token[0].isalnum() or token[0] == "." or token in _FACTOR_STARTS)

    # Factors

    def _parse_factor(self) -> Node:
        """Parse a base with its postfixes: powers, factorials, degrees."""
        node = self._parse_base()
        for _ in range(MAX_POSTFIXES):
            if self._tokens.accept("!"):
                node = call("double factorial" if self._tokens.accept("!") else "factorial", node)
            elif self._tokens.accept("^"):
                self._tokens.expect("{")
                if self._tokens.accept("\\circ"):
                    node = product(node, name("\\pi"), number(Fraction(1, 180)))
                else:
                    node = power(node, self._parse_sum())
                self._tokens.expect("}")
            else:
                return node
        raise UnreadableError("too many postfixes")

    def _parse_base(self) -> Node:
        token = self._tokens.take()
        match token:
            case "(" | "[" | "\\{" | "\\langle":
                return self._parse_bracket(token)
            case "|" | "\\mid" | "\\lvert" | "\\lfloor" | "\\lceil":
                return self._parse_bars(token)
            case "\\frac":
                return quotient(self._parse_group(), self._parse_group())
            case "\\binom":
                return call("binomial", self._parse_group(), self._parse_group())
            case "\\sqrt":
                return self._parse_root()
            case "\\text":
                return name(self._parse_letters())
            case "\\mathbb":
                return name(f"\\mathbb{self._parse_letters()}")
            case "\\begin":
                return self._parse_matrix()
        if token[:1] in _FIGURES:
            return _parse_number(token)
        if token[-1:] == ")" != token:
            return name(token)
        if token in ACCENTS:
            return name(f"{token}{{{self._parse_letters()}}}")
        if token in FUNCTIONS:
            return self._parse_function(token[1:])
        if token in _UNKNOWN_FUNCTIONS and self._tokens.next == "(":
            return call(token, *self._parse_arguments())
        if token in SYMBOLS or (len(token) == 1 and token.isalpha()):
            return self._parse_name(token)
        raise UnreadableError(f"no value begins with {token!r}")

    def _parse_group(self) -> Node:
        """Parse an expression in braces."""
        self._tokens.expect("{")
        node = self._parse_sum()
        self._tokens.expect("}")
        return node

    def _parse_letters(self) -> str:
        """Parse one word or letter in braces."""
        self._tokens.expect("{")
        word = self._tokens.take()
        self._tokens.expect("}")
        return word

    def _parse_root(self) -> Node:
        degree = number(2)
        if self._tokens.accept("["):
            degree = self._parse_sum()
            self._tokens.expect("]")
        radicand = self._parse_bracket("(") if self._tokens.accept("(") else self._parse_group()
        return power(radicand, quotient(number(1), degree))

    def _parse_bars(self, opening: str) -> Node:
        """Parse the inside of an absolute value, floor or ceiling."""
        closing, function = _CLOSING_BARS[opening]
        self._tokens.open_bars += opening == "|"
        inside = self._parse_sum()
        self._tokens.expect(closing)
        self._tokens.open_bars -= opening == "|"
        return call(function, inside)

    def _parse_matrix(self) -> Node:
        r"""Parse what follows `\begin`, to the end of that environment."""
        kind = self._parse_letters()
        if kind not in _MATRICES:
            raise UnreadableError(f"environment {kind}")
        if kind == "array":
            while self._tokens.take() not in ("}", ""):
                pass
        rows: list[Node] = []
        while True:
            cells = [self._parse_sum()]
            while self._tokens.accept("&"):
                cells.append(self._parse_sum())
            rows.append(Node("row", tuple(cells)))
            if not self._tokens.accept("\\\\") or self._tokens.next == "\\end":
                break
        self._tokens.expect("\\end")
        self._parse_letters()
        return Node("matrix", tuple(rows))

    # Functions and names

    def _parse_function(self, function: str) -> Node:
        """Parse a function's base and power, and its argument with or without parentheses."""
        base = self._parse_group() if function == "log" and self._tokens.accept("_") else None
        exponent = self._parse_group() if self._tokens.accept("^") else None
        arguments = self._parse_arguments()
        if base is not None:
            node = quotient(call("ln", *arguments), call("ln", base))
        elif exponent and exponent.head == "number" and exponent.value == -1 and function in _INVERTIBLE:
            return call(f"arc{function}", *arguments)
        else:
            node = call(function, *arguments)
        return node if exponent is None else power(node, exponent)

    def _parse_arguments(self) -> list[Node]:
        self._tokens.accept(" ")
        if self._tokens.accept("("):
            arguments = self._parse_items((")",))
            self._tokens.expect(")")
            return arguments
        self._tokens.descend()
        factors = [self._parse_factor()]
        self._tokens.ascend()
        while self._is_factor_next() and self._tokens.next not in FUNCTIONS and self._tokens.next not in ("(", "["):
            factors.append(self._parse_factor())
        return [product(*factors)]

    def _parse_name(self, label: str) -> Node:
        """Parse the primes and the subscript of a name, which belong to its label in this order."""
        subscripted = ""
        while self._tokens.accept("'"):
            label += "'"
        if self._tokens.accept("_"):
            self._tokens.expect("{")
            subscript = []
            while self._tokens.next and self._tokens.next not in ("{", "}"):
                subscript.append(self._tokens.take())
            self._tokens.expect("}")
            subscripted = f"_{{{''.join(subscript)}}}"
            while self._tokens.accept("'"):
                label += "'"
        return name(label + subscripted)


def _parse_number(token: str) -> Node:
    r"""Return the exact value of a token such as `12`, `0.50` or `0.1\overline{6}`."""
    if len(token) > MAX_NUMBER_CHARACTERS:
        raise UnreadableError("too many digits")
    if "\\overline" not in token:
        return number(*read_digits(token))
    fixed, _, repeating = token.partition("\\overline{")
    repeating = repeating.rstrip("}")
    start = read_digits(fixed)
    unit = start.step or Fraction(1)
    return number(start.value + int(repeating) * unit / (10 ** len(repeating) - 1))


def _scale(decimal: Node, factor: Node) -> Node:
    """Return a product; that of a number and a power of ten remembers the precision at which it was written."""
    match decimal, factor:
        case Node("number"), Node("^", (Node("number") as base, Node("number") as exponent)):
            if base.value == 10 and exponent.value.denominator == 1 and abs(exponent.value) <= MAX_DECIMAL_EXPONENT:
                scale = Fraction(10) ** int(exponent.value)
                return replace(decimal, value=decimal.value * scale, step=decimal.step and decimal.step * scale)
    return product(decimal, factor)


def _proper_fraction(node: Node) -> Fraction | None:
    r"""Return the value of `\frac{a}{b}` with whole numbers 0 < a < b, or None."""
    match node:
        case Node("*", (Node("number") as above, Node("^", (Node("number") as below, _)))):
            is_proper = 0 < above.value < below.value and above.value.denominator == below.value.denominator == 1
            return above.value / below.value if is_proper else None
    return None
