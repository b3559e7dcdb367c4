"""Braces stand around every argument and nowhere else: LaTeX shows no others, so `x^2` is `x^{2}` and `{x}` is `x`."""

from __future__ import annotations

from typing import NamedTuple

from lm_eval_pruned.grading.vocabulary import commands

# How many arguments follow; of a command in neither list any number of groups may be arguments.
_ARGUMENTS = {"\\frac": 2, "\\binom": 2, "\\sqrt": 1, "^": 1, "_": 1, "\\pmod": 1, "\\mathbb": 1}
_BARE = commands(
    "sin cos tan cot sec csc arcsin arccos arctan log ln exp cdot pm mp le ge ne in cup cap to infty pi circ ldots "
    "triangle angle"
)
_ANY = -1


class _Frame(NamedTuple):
    closer: str
    waiting: int
    implicit: bool = False


class Writer:
    """Writes tokens and knows for how many arguments the last command still waits."""

    def __init__(self) -> None:
        self._out: list[str] = []
        self._frames: list[_Frame] = []
        self._gap = False
        self.waiting = 0

    @property
    def last(self) -> str:
        """The last piece written, a blank at the start."""
        return self._out[-1] if self._out else " "

    def emit(self, piece: str) -> None:
        """Write one piece as it is."""
        before = self.last
        # Blanks mean something only in "1 2/3" and where a letter would become part of a command.
        blank = (self._gap and is_numeral(before[-1]) and is_numeral(piece[0])) or (
            before[0] == "\\" and before[-1].isalpha() and piece[0].isascii() and piece[0].isalpha()
        )
        self._out.append(f" {piece}" if blank else piece)
        self._gap = False

    def skip_blank(self) -> None:
        """Note a blank, which is written only where it means something."""
        self._gap = True

    def open(self) -> None:
        """Start a group whose end will come."""
        argument = self.waiting != 0
        self._frames.append(_Frame("}" if argument else "", self.waiting - 1 if self.waiting > 0 else self.waiting))
        self.waiting = 0
        if argument:
            self.emit("{")

    def close(self) -> None:
        """End the innermost group that `open` or an enclosing `open` started."""
        while self._frames[-1].implicit or self._frames[-1].closer == "]":
            if self._frames.pop().implicit:
                self.emit("}")
        frame = self._frames.pop()
        if frame.closer:
            self.emit("}")
        self._wait(frame.waiting)

    def open_option(self) -> None:
        """Start the degree of a root; a `]` ends it."""
        self._frames.append(_Frame("]", self.waiting))
        self.waiting = 0
        self.emit("[")

    def put(self, token: str) -> None:
        """Write a token that is no brace, with braces of its own where it is an argument."""
        self.end_arguments()
        if self.waiting:
            self.emit("{")
            self._frames.append(_Frame("}", self.waiting - 1, implicit=True))
            self.emit(token)
            self._wait(_arguments(token))
            return
        self.emit(token)
        ends_option = token == "]" and bool(self._frames) and self._frames[-1].closer == "]"
        self.waiting = self._frames.pop().waiting if ends_option else _arguments(token)

    def put_run(self, run: str) -> None:
        """Write characters that stand for themselves; as many as are waited for become arguments, one each."""
        self.end_arguments()
        place = 0
        while self.waiting and place < len(run):
            self.put(run[place])
            place += 1
        if place < len(run):
            self.emit(run[place:])

    def end_arguments(self) -> None:
        """Settle that an unknown command gets no more arguments."""
        if self.waiting == _ANY:
            self._wait(0)

    def finish(self) -> str:
        """Close what is open and return the text."""
        while self._frames:
            if self._frames.pop().implicit:
                self.emit("}")
        return "".join(self._out)

    def _wait(self, waiting: int) -> None:
        self.waiting = waiting
        while not self.waiting and self._frames and self._frames[-1].implicit:
            self.emit("}")
            self.waiting = self._frames.pop().waiting


def _arguments(token: str) -> int:
    if token in _BARE or not (token in _ARGUMENTS or (token[0] == "\\" and token[1:].isalpha())):
        return 0
    return _ARGUMENTS.get(token, _ANY)


def is_numeral(sign: str) -> bool:
    """Tell whether a sign can be part of a number, where blanks and neighbours matter."""
    return sign in "0123456789."
