"""Exceptions raised for a user's mistakes; each message says what was given, what is allowed and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class PrunedEvalError(Exception):
    """Base class of all errors raised on purpose; command lines print them as one line without a traceback."""


class ArgumentError(PrunedEvalError, ValueError):
    """An argument is unknown, out of range or contradicts another one."""


class UnknownNameError(PrunedEvalError, KeyError):
    """A name is not one of the known choices."""

    def __str__(self) -> str:
        # KeyError.__str__ would put the message in quotes.
        return str(self.args[0])


class DataError(PrunedEvalError, ValueError):
    """A file or data set exists but its content cannot be used."""


class MissingDataError(PrunedEvalError, FileNotFoundError):
    """A file, model or data set cannot be reached."""


class PruningError(PrunedEvalError, RuntimeError):
    """A model cannot be pruned as asked, or its achieved sparsity misses the target."""


class BudgetError(PrunedEvalError, ValueError):
    """A thinking budget does not fit the model's context."""


class EngineError(PrunedEvalError, RuntimeError):
    """An inference engine does not start, or fails a request."""


class MissingPackageError(PrunedEvalError, ImportError):
    """An optional package is not installed; the message holds the command that installs it."""


def unknown_name(what: str, given: object, known: Iterable[str]) -> UnknownNameError:
    """Build the error for a name that is not in `known`, suggesting the nearest one.

    Example:
        >>> print(unknown_name("alloc", "owll", ["uniform", "owl"]))
        unknown alloc 'owll': did you mean 'owl'? Known: owl, uniform
    """
    names = sorted({*known})
    nearest = get_close_matches(str(given), names, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return UnknownNameError(f"unknown {what} {given!r}: {hint}Known: {', '.join(names)}")


def error_line(program: str, message: str) -> str:
    r"""Format `message` as one line for stderr; line breaks become blanks.

    Example:
        >>> error_line("lm_eval", "unknown alloc 'owll':\n  did you mean 'owl'?")
        "lm_eval: error: unknown alloc 'owll': did you mean 'owl'?\n"
    """
    return f"{program}: error: {' '.join(line.strip() for line in message.splitlines())}\n"
