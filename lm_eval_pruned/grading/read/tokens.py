"""Tokenizer of normal forms (numbers, commands, letters, blanks between numbers) and the parser's token cursor."""

from __future__ import annotations

import re

from lm_eval_pruned.grading.limits import MAX_PARSER_DEPTH
from lm_eval_pruned.grading.vocabulary import LONGEST_PRODUCT, TYPED_COMMANDS

_TOKEN = re.compile(
    r"(?P<repeating>[0-9]*\.[0-9]*\\overline\{[0-9]+\})|(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    # A value of a function that is not known is a variable: N(0) is not zero.
    r"|(?P<value>(?<![A-Za-z\\])(?:[A-Zfgh]\([0-9]{1,9}\)|[FGfgh]\([a-z]\)|(?![ei])[a-z]\(0\)))"
    # Typed as R1; x2^{3} may be the cube of either, and 2e3 a number.
    r"|(?<![A-Za-z\\])(?P<name>(?![ei])[A-Za-z])(?P<index>[0-9]+)(?![0-9.^])"
    r"|(?P<command>\\[A-Za-z]+|\\.)|(?P<word>[A-Za-z]{1,2}(?=(?:sin|cos|tan|exp|ln|log)[(^])|[A-Za-z]+)"
    r"|(?P<blank>[ ]+)|(?P<sign>.)",
    re.DOTALL,
)


class UnreadableError(ValueError):
    """A text that cannot be parsed to its end, or that is beyond a limit."""


class Tokens:
    """A cursor over the tokens of a normal form, which also counts the depth of nesting.

    A method that does not find what it must raises UnreadableError.
    """

    def __init__(self, form: str) -> None:
        self._tokens = tokenize(form)
        self._index = 0
        self._depth = 0
        # Absolute value bars that are open: after a value, the next bar closes one.
        self.open_bars = 0

    @property
    def last(self) -> str:
        """The token that was taken last."""
        return self._tokens[self._index - 1]

    @property
    def next(self) -> str:
        """The next token, empty at the end."""
        return self._tokens[self._index] if self._index < len(self._tokens) else ""

    @property
    def after_next(self) -> str:
        """The token after the next one, empty at the end."""
        return "".join(self._tokens[self._index + 1 : self._index + 2])

    def take(self) -> str:
        """Take the next token, whatever it is."""
        token = self.next
        self._index += 1
        return token

    def accept(self, token: str) -> bool:
        """Take the next token if it is this one."""
        is_next = self.next == token
        self._index += is_next
        return is_next

    def expect(self, *tokens: str) -> str:
        """Take the next token, which must be one of these."""
        if self.next not in tokens or not self.next:
            raise UnreadableError(f"expected {tokens}, found {self.next!r}")
        return self.take()

    def expect_end(self) -> None:
        """Refuse tokens that are left over."""
        if self.next:
            raise UnreadableError(f"left over: {self.next!r}")

    def descend(self) -> None:
        """Enter one level of nesting, within the limit."""
        self._depth += 1
        if self._depth > MAX_PARSER_DEPTH:
            raise UnreadableError("nested too deeply")

    def ascend(self) -> None:
        """Leave one level of nesting."""
        self._depth -= 1


def tokenize(form: str) -> list[str]:
    r"""Return the tokens of a normal form; a run of a few letters is a product of variables, a typed command gets `\`.

    Example:
        >>> tokenize(r"2ab+sin(x)"), tokenize("1 2/3")
        (['2', 'a', 'b', '+', '\\sin', '(', 'x', ')'], ['1', ' ', '2', '/', '3'])
    """
    tokens: list[str] = []
    for match in _TOKEN.finditer(form):
        token = TYPED_COMMANDS.get(match[0], match[0])
        if match["index"]:
            tokens += [match["name"], "_", "{", match["index"], "}"]
        elif token.isalpha() and len(token) <= LONGEST_PRODUCT:
            tokens += token
        elif match["blank"] is None:
            tokens.append(token)
        elif form[match.start() - 1 : match.start()].isdigit() and form[match.end() : match.end() + 1].isdigit():
            tokens.append(" ")
    return tokens
