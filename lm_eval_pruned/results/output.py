"""Where a command's text goes: a file that is there as a whole or not at all, or the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lm_eval_pruned.errors import ArgumentError


def write_text(path: Path, content: str) -> None:
    """Write a file beside its place and move it there.

    Raises:
        ArgumentError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            beside.write_text(printable(content), encoding="utf-8")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as problem:
        raise ArgumentError(f"--output {path} cannot be written: {problem.strerror}") from None


def printable(content: str) -> str:
    r"""Escape halves of surrogate pairs, which JSON can hold and UTF-8 cannot.

    Example:
        >>> printable("model \ud800")
        'model \\ud800'
    """
    return content.encode("utf-8", "backslashreplace").decode("utf-8")


def warn_skipped(problems: Sequence[str]) -> None:
    """Name each file that was skipped on stderr, and count them."""
    for problem in problems:
        sys.stderr.write(printable(f"warning: skipped: {problem}\n"))
    if problems:
        sys.stderr.write(f"warning: {len(problems)} file{'s' * (len(problems) > 1)} skipped\n")
