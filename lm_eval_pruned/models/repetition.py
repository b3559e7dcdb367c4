"""Degenerate repetition in a text: the loop that it ends in, where that begins, and the share of repeated n-grams."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Loops are searched for in this many characters at the end of a text.
LOOP_TAIL = 8192
# Fewest repetitions of a loop.
LOOP_REPEATS = 4
# Fewest characters of a loop: shorter repetition is a ruled line, a row of digits or a refrain.
LOOP_CHARACTERS = 80
# Texts are cut into these, whatever the tokenizer: runs of letters and digits, and single other marks.
_WORD = re.compile(r"\w+|[^\w\s]")


def loop_start(text: str) -> int | None:
    """Return where the degenerate repetition at the end of a text begins, in characters, or None if there is none.

    A text ends in one if, for some p, its last m characters repeat with period p (each equals the one p before it),
    where m >= LOOP_REPEATS * p and m >= LOOP_CHARACTERS, all within its last LOOP_TAIL characters. The last repetition
    may be incomplete. Of several, the one that begins first counts, and if it fills the tail it is followed back as far
    as it goes. Repetitions that differ in a single character, such as a counter, are not a loop. Linear time.

    Example:
        >>> loop_start("So x = 2:" + "Wait, let me check again. " * 4)
        9
        >>> loop_start("i=h*5=9*5=5;j=i+9=5+9=4;k=j+9=4+9=3;")
    """
    backwards = text[: -LOOP_TAIL - 1 : -1]
    # Knuth-Morris-Pratt failure function: the smallest period of a prefix is its length minus its longest border.
    borders = [0] * len(backwards)
    border = loop = period = 0
    for index in range(1, len(backwards)):
        while border and backwards[index] != backwards[border]:
            border = borders[border - 1]
        border += backwards[index] == backwards[border]
        borders[index] = border
        length = index + 1
        if length >= LOOP_CHARACTERS and length >= LOOP_REPEATS * (length - border):
            loop, period = length, length - border
    if not loop:
        return None
    start = len(text) - loop
    while loop == len(backwards) and start and text[start - 1] == text[start - 1 + period]:
        start -= 1
    return start


def loop_onset(phases: Sequence[str]) -> float:
    """Return the share of a response, in characters, before the first of its phases falls into a loop; 1.0 without one.

    Each phase (thinking and answer) is searched by itself: a loop that the budget cut is at the end of the thinking,
    not of the text.

    Example:
        >>> loop_onset(["Let me see. " + "Wait, " * 20, "x" * 68]), loop_onset(["It is 5.", ""])
        (0.055, 1.0)
    """
    before = 0
    for phase in phases:
        start = loop_start(phase)
        if start is not None:
            return (before + start) / sum(map(len, phases))
        before += len(phase)
    return 1.0


def repeated_ngrams(phases: Sequence[str], n: int) -> float:
    """Return the share of the n-grams of a response that occurred before in the same phase; 0.0 if it has none.

    rep-n = 1 - (different n-grams) / (n-grams), both summed over the phases. The n-grams are of words, whatever the
    tokenizer: runs of letters and digits, and single other marks.

    Example:
        >>> repeated_ngrams(["a b a b a b"], 2)
        0.6

    Reference: Welleck et al. 2020, Neural Text Generation with Unlikelihood Training, arXiv 1908.04319.
    """
    total = different = 0
    for phase in phases:
        words = _WORD.findall(phase)
        ngrams = list(zip(*(words[place:] for place in range(n)), strict=False))
        total, different = total + len(ngrams), different + len(set(ngrams))
    return 1 - different / total if total else 0.0
