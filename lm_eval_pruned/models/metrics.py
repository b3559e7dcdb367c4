"""Several samples of one question make one number: pass@k, a majority answer, and whether a text runs in circles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb

from lm_eval_pruned.errors import ArgumentError

# A loop is looked for in this much of the end of a text,
LOOP_TAIL = 8192
# must come round this often,
LOOP_REPEATS = 4
# and must fill this many characters: less is a ruled line, a row of digits or a refrain.
LOOP_CHARACTERS = 80


def pass_at_k(n: int, c: int, k: int) -> float:
    """Estimate, without bias, the chance that at least one of k samples is correct, given c correct ones among n.

    pass@k = 1 - C(n - c, k) / C(n, k), counted in exact integers.

    Raises:
        ArgumentError: unless 0 <= c <= n and 1 <= k <= n.

    Example:
        >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 2), pass_at_k(4, 0, 4)
        (0.25, 0.5, 0.0)

    Reference: Chen et al., Evaluating Large Language Models Trained on Code, arXiv 2107.03374.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ArgumentError(f"pass@k of n={n}, c={c}, k={k}: needs 0 <= c <= n correct samples and 1 <= k <= n")
    return (comb(n, k) - comb(n - c, k)) / comb(n, k)


def passes(n: int) -> list[int]:
    """Return the k for which pass@k of n samples is reported: the powers of two below n, and n; pass@1 is `acc`.

    Example:
        >>> passes(6)
        [2, 4, 6]
    """
    return [*(2**power for power in range(1, n.bit_length()) if 2**power < n), n]


def majority(answers: Sequence[str | None], equal: Callable[[str, str], object]) -> str | None:
    """Return the first answer of the largest group of equal answers; the earliest group wins a tie, None abstains.

    An answer joins the first group whose first member it equals; `equal` counts as true or false.

    Example:
        >>> majority(["Pi", "7", None, "pi", "7"], lambda left, right: left.lower() == right.lower())
        'Pi'
        >>> majority([None, None], str.__eq__)
    """
    votes: dict[str, int] = {}
    for answer in answers:
        if answer is not None:
            leader = answer if answer in votes else next((first for first in votes if equal(first, answer)), answer)
            votes[leader] = votes.get(leader, 0) + 1
    return max(votes, key=votes.__getitem__, default=None)


def is_looping(text: str) -> bool:
    """Tell whether a text ends in degenerate repetition.

    It does if, for some p, its last m characters repeat with period p (each equals the one p before it), where
    m >= LOOP_REPEATS * p and m >= LOOP_CHARACTERS, all within its last LOOP_TAIL characters. The last round may be cut
    short. Rounds that differ in a single character, such as a counter, are reasoning and no loop. Linear time.

    Example:
        >>> is_looping("So x = 2. " + "Wait, let me check again. " * 4)
        True
        >>> is_looping("i=h*5=9*5=5;j=i+9=5+9=4;k=j+9=4+9=3;")
        False
    """
    backwards = text[: -LOOP_TAIL - 1 : -1]
    # Knuth, Morris and Pratt: after `length` characters the longest border leaves the smallest period.
    borders = [0] * len(backwards)
    border = 0
    for place in range(1, len(backwards)):
        while border and backwards[place] != backwards[border]:
            border = borders[border - 1]
        border += backwards[place] == backwards[border]
        borders[place] = border
        length = place + 1
        if length >= LOOP_CHARACTERS and length >= LOOP_REPEATS * (length - border):
            return True
    return False
