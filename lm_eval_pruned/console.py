"""How a command line words a user's mistake: one line, no traceback."""

from __future__ import annotations


def error_line(program: str, message: str) -> str:
    r"""Return `message` as one line for stderr, whatever line breaks it has.

    Example:
        >>> error_line("lm_eval", "unknown alloc 'owll':\n  did you mean 'owl'?")
        "lm_eval: error: unknown alloc 'owll': did you mean 'owl'?\n"
    """
    return f"{program}: error: {' '.join(line.strip() for line in message.splitlines())}\n"
