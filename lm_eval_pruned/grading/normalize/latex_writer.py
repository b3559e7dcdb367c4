"""Writer of LaTeX with braces around every argument and nowhere else: `x^2` becomes `x^{2}`, and `{x}` becomes `x`."""

from __future__ import annotations

from typing import NamedTuple

from lm_eval_pruned.grading.vocabulary import commands

# Arguments of each command. Every pair of braces after a command in neither list may be an argument.
_ARGUMENTS = {"\\frac": 2, "\\binom": 2, "\\sqrt": 1, "^": 1, "_": 1, "\\pmod": 1, "\\mathbb": 1}
_BARE = commands(
    "sin cos tan cot sec csc arcsin arccos arctan log ln exp cdot pm mp le ge ne in cup cap to infty pi circ ldots "
    "triangle angle"
)
_ANY = -1


class _Frame(NamedTuple):
    """An open brace of LaTeX: how it will be closed, and the arguments expected after it."""

    closer: str
    waiting: int
    implicit: bool = False


class Writer:
    """Writes tokens, and counts how many arguments the last command still expects."""

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
        """Write one piece unchanged, with a blank before it if that is needed."""
        before = self.last
        # A blank has a meaning only in 1 2/3 and where a letter would become part of a command.
        blank = (self._gap and is_numeral(before[-1]) and is_numeral(piece[0])) or (
            before[0] == "\\" and before[-1].isalpha() and piece[0].isascii() and piece[0].isalpha()
        )
        self._out.append(f" {piece}" if blank else piece)
        self._gap = False

    def skip_blank(self) -> None:
        """Remember a blank, which is written only if it has a meaning."""
        self._gap = True

    def open(self) -> None:
        """Open a brace, to be closed by `close`."""
        argument = self.waiting != 0
        self._frames.append(_Frame("}" if argument else "", self.waiting - 1 if self.waiting > 0 else self.waiting))
        self.waiting = 0
        if argument:
            self.emit("{")

    def close(self) -> None:
        """Close the innermost brace that `open` opened."""
        while self._frames[-1].implicit or self._frames[-1].closer == "]":
            if self._frames.pop().implicit:
                self.emit("}")
        frame = self._frames.pop()
        if frame.closer:
            self.emit("}")
        self._wait(frame.waiting)

    def open_option(self) -> None:
        """Start the optional degree of a root, which ends with `]`."""
        self._frames.append(_Frame("]", self.waiting))
        self.waiting = 0
        self.emit("[")

    def put(self, token: str) -> None:
        """Write a token that is not a brace, in braces of its own if it is an argument."""
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
        """Write ordinary characters; the first ones become arguments, one each, as long as arguments are expected."""
        self.end_arguments()
        count = 0
        while self.waiting and count < len(run):
            self.put(run[count])
            count += 1
        if count < len(run):
            self.emit(run[count:])

    def end_arguments(self) -> None:
        """Decide that an unknown command has no more arguments."""
        if self.waiting == _ANY:
            self._wait(0)

    def finish(self) -> str:
        """Close all open braces and return the text."""
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


def is_numeral(character: str) -> bool:
    """Tell whether a character can be part of a number, where blanks have a meaning."""
    return character in "0123456789."
