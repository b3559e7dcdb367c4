"""Every mistake a user can make is a PrunedEvalError whose message says what was given, what is allowed, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class PrunedEvalError(Exception):
    """Root of all errors this package raises on purpose; command lines print it as one line without a traceback."""


class ArgumentError(PrunedEvalError, ValueError):
    """An argument is unknown, out of range or contradicts another one."""


class UnknownNameError(PrunedEvalError, KeyError):
    """A name is not in a closed list of choices."""

    def __str__(self) -> str:
        # KeyError would show the message in quotes.
        return str(self.args[0])


class DataError(PrunedEvalError, ValueError):
    """A file or data set exists but does not hold what is needed."""


class MissingDataError(PrunedEvalError, FileNotFoundError):
    """A file, model or data set cannot be reached."""


class PruningError(PrunedEvalError, RuntimeError):
    """A model cannot be pruned as asked, or the outcome is not what was asked for."""


class BudgetError(PrunedEvalError, ValueError):
    """A thinking budget does not fit the model's context."""


class EngineError(PrunedEvalError, RuntimeError):
    """An inference engine does not start, or gives up a request."""


class MissingPackageError(PrunedEvalError, ImportError):
    """An optional package is not installed; the message holds the command that installs it."""


def unknown_name(what: str, given: object, known: Iterable[str]) -> UnknownNameError:
    """Build the error for a name that is not among `known`, with the nearest one as a suggestion.

    Example:
        >>> print(unknown_name("alloc", "owll", ["uniform", "owl"]))
        unknown alloc 'owll': did you mean 'owl'? Known: owl, uniform
    """
    names = sorted(known)
    nearest = get_close_matches(str(given), names, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return UnknownNameError(f"unknown {what} {given!r}: {hint}Known: {', '.join(names)}")


def error_line(program: str, message: str) -> str:
    r"""Return `message` as one line for stderr, whatever line breaks it has.

    Example:
        >>> error_line("lm_eval", "unknown alloc 'owll':\n  did you mean 'owl'?")
        "lm_eval: error: unknown alloc 'owll': did you mean 'owl'?\n"
    """
    return f"{program}: error: {' '.join(line.strip() for line in message.splitlines())}\n"
