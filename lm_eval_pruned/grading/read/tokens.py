"""The tokens of a normal form, numbers, commands, letters and blanks between numbers, and how far they were read."""

from __future__ import annotations

import re
from fractions import Fraction

from lm_eval_pruned.grading.limits import MAX_NUMBER_CHARACTERS, MAX_PARSER_DEPTH
from lm_eval_pruned.grading.read.tree import Node, number
from lm_eval_pruned.grading.vocabulary import FUNCTIONS, LONGEST_PRODUCT, TYPED_SYMBOLS

_TOKEN = re.compile(
    r"(?P<repeating>[0-9]*\.[0-9]*\\overline\{[0-9]+\})|(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    r"|(?P<command>\\[A-Za-z]+|\\.)|(?P<word>[A-Za-z]+)|(?P<blank>[ ]+)|(?P<sign>.)",
    re.DOTALL,
)
# Who types x^10 does not mean what LaTeX makes of it.
_LONE_DIGIT = re.compile(r"\^\{([0-9])\}([0-9]+)")


class UnreadableError(ValueError):
    """A form that this reader does not know how to read in full."""


class Tokens:
    """The tokens of a form and how far they were read."""

    def __init__(self, form: str) -> None:
        self._tokens = tokenize(form)
        self._place = 0
        self._depth = 0
        # Bars that are open: behind a value the next one closes them.
        self.bars = 0

    @property
    def last(self) -> str:
        """The token that was taken last."""
        return self._tokens[self._place - 1]

    @property
    def next(self) -> str:
        """The token that comes next, empty at the end."""
        return self._tokens[self._place] if self._place < len(self._tokens) else ""

    def take(self) -> str:
        """Take the next token, whatever it is."""
        token = self.next
        self._place += 1
        return token

    def accept(self, token: str) -> bool:
        """Take the next token if it is this one."""
        found = self.next == token
        self._place += found
        return found

    def accept_all(self, *tokens: str) -> bool:
        """Take the next tokens if they are these."""
        found = tuple(self._tokens[self._place : self._place + len(tokens)]) == tokens
        self._place += found * len(tokens)
        return found

    def expect(self, *tokens: str) -> str:
        """Take the next token, which must be one of these."""
        if self.next not in tokens or not self.next:
            raise UnreadableError(f"expected {tokens}, found {self.next!r}")
        return self.take()

    def end(self) -> None:
        """Refuse what is left over."""
        if self.next:
            raise UnreadableError(f"left over: {self.next!r}")

    def descend(self) -> None:
        """Stand one level deeper, which is bounded."""
        self._depth += 1
        if self._depth > MAX_PARSER_DEPTH:
            raise UnreadableError("nested too deeply")

    def ascend(self) -> None:
        """Stand one level higher."""
        self._depth -= 1


def tokenize(form: str) -> list[str]:
    r"""Return the tokens of a form; a run of a few letters is a product of variables.

    Example:
        >>> tokenize(r"2ab+\sin x"), tokenize("1 2/3"), tokenize("x^{1}0")
        (['2', 'a', 'b', '+', '\\sin', 'x'], ['1', ' ', '2', '/', '3'], ['x', '^', '{', '10', '}'])
    """
    tokens: list[str] = []
    form = _LONE_DIGIT.sub(r"^{\1\2}", form)
    for match in _TOKEN.finditer(form):
        if (
            match["word"]
            and f"\\{match[0]}" not in FUNCTIONS
            and match[0] not in TYPED_SYMBOLS
            and len(match[0]) <= LONGEST_PRODUCT
        ):
            tokens += match[0]
        elif match["blank"] is None:
            tokens.append(match[0])
        elif form[match.start() - 1 : match.start()].isdigit() and form[match.end() : match.end() + 1].isdigit():
            tokens.append(" ")
    return tokens


def read_decimal(token: str) -> Node:
    """Return the number that a token writes, exactly, with the size of its last place.

    Raises:
        UnreadableError: it has too many digits.
    """
    if len(token) > MAX_NUMBER_CHARACTERS:
        raise UnreadableError("too many digits")
    whole, point, decimals = token.partition(".")
    if "\\overline" in token:
        fixed, _, repeating = decimals.partition("\\overline{")
        repeating = repeating.rstrip("}")
        unit = 10 ** len(fixed)
        value = Fraction(int((whole + fixed) or "0"), unit) + Fraction(
            int(repeating), unit * (10 ** len(repeating) - 1)
        )
        return number(value)
    value = Fraction(int((whole + decimals) or "0"), 10 ** len(decimals))
    step = Fraction(1, 10 ** len(decimals)) if point else None
    return Node("number", value=value, step=step, significant=len((whole + decimals).lstrip("0")))
