"""Text output of the commands: atomic writes of their files, and warnings on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.files import write_atomically


def write_text(path: Path, content: str, *, flag: str = "--output ") -> None:
    """Write a file atomically, with what UTF-8 cannot hold escaped; `flag` is where a user gave its name.

    Raises:
        ArgumentError: it cannot be written.
    """
    try:
        write_atomically(path, printable(content))
    except OSError as problem:
        raise ArgumentError(f"{flag}{path} cannot be written: {problem.strerror}") from None


def make_folder(path: Path, *, flag: str = "--output ") -> Path:
    """Make a folder and those above it, and return it; `flag` is where a user gave its name.

    Raises:
        ArgumentError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise ArgumentError(f"{flag}{path} cannot be made: {problem.strerror}") from None
    return path


def printable(content: str) -> str:
    r"""Escape lone surrogates, which JSON can hold and UTF-8 cannot.

    Example:
        >>> printable("model \ud800")
        'model \\ud800'
    """
    return content.encode("utf-8", "backslashreplace").decode("utf-8")


def warn_skipped(problems: Sequence[str]) -> None:
    """Print each file, task or samples file that was skipped on stderr, and their number."""
    for problem in problems:
        sys.stderr.write(printable(f"warning: skipped: {problem}\n"))
    if problems:
        sys.stderr.write(f"warning: {len(problems)} skipped\n")
