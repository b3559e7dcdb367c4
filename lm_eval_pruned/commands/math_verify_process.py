"""Judges answers with math-verify, one JSON line in, one out; runs as a script, also where this package is missing."""

from __future__ import annotations

import json
import logging
import sys
import time
from importlib.metadata import version


def as_mathematics(answer: str) -> str:
    r"""Return an answer between dollar signs, which math-verify needs to read it as LaTeX.

    Example:
        >>> as_mathematics(r"\frac12"), as_mathematics("$5$")
        ('$\\frac12$', '$5$')
    """
    return answer if answer.startswith(("$", "\\(", "\\[")) else f"${answer}$"


def judge(golds: list[str], text: str, kind: str, is_response: bool) -> tuple[bool, str | None]:
    """Return whether the text gives one of the gold answers, and the last answer that math-verify found in it."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, StringExtractionConfig, parse, verify

    latex, letters = LatexExtractionConfig(), StringExtractionConfig()
    if kind == "choice":
        found = parse(text, (latex, letters))
        # A letter in a box is read as a variable, one in a sentence as text.
        wanted = [parse(gold, (letters,)) + parse(as_mathematics(gold), (latex,)) for gold in golds]
    else:
        config = (latex, ExprExtractionConfig())
        found = parse(text if is_response else as_mathematics(text), config)
        wanted = [parse(as_mathematics(gold), config) for gold in golds]
    return any(verify(gold, found) for gold in wanted), str(found[-1]) if found else None


def main() -> None:
    """Answer each line of stdin; an exception is a reply too."""
    # What the package prints must not mix with the replies.
    replies, sys.stdout = sys.stdout, sys.stderr
    try:
        import math_verify  # noqa: F401
    except ImportError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    logging.disable(logging.CRITICAL)
    print(json.dumps(version("math-verify")), file=replies, flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        try:
            correct, extracted = judge(**json.loads(line))
            status = "ok" if extracted is not None else "no_answer"
        except Exception as error:
            correct, extracted, status = False, None, f"failed: {type(error).__name__}"
        reply = [correct, status, extracted, (time.perf_counter() - begin) * 1000]
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
