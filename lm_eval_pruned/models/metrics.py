"""Metrics of several samples of one question: pass@k and majority vote, and detection of degenerate repetition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb

from lm_eval_pruned.errors import ArgumentError

# Loops are searched for in this many characters at the end of a text.
LOOP_TAIL = 8192
# Fewest repetitions of a loop.
LOOP_REPEATS = 4
# Fewest characters of a loop: shorter repetition is a ruled line, a row of digits or a refrain.
LOOP_CHARACTERS = 80


def pass_at_k(n: int, c: int, k: int) -> float:
    """Estimate without bias the probability that at least one of k samples is correct, given c correct ones among n.

    pass@k = 1 - C(n - c, k) / C(n, k), computed in exact integers.

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


def reported_ks(n: int) -> list[int]:
    """Return the k for which pass@k of n samples is reported: powers of two below n, and n; pass@1 is `acc`.

    Example:
        >>> reported_ks(6)
        [2, 4, 6]
    """
    return [*(2**power for power in range(1, n.bit_length()) if 2**power < n), n]


def majority(answers: Sequence[str | None], equal: Callable[[str, str], object]) -> str | None:
    """Return the answer with the most votes; the earliest wins a tie, and None is not counted.

    An answer is a vote for the first earlier answer that it equals, by the truth value of `equal`.

    Example:
        >>> majority(["Pi", "7", None, "pi", "7"], lambda left, right: left.lower() == right.lower())
        'Pi'
        >>> majority([None, None], str.__eq__)
    """
    votes: dict[str, int] = {}
    for answer in answers:
        if answer is not None:
            choice = answer if answer in votes else next((first for first in votes if equal(first, answer)), answer)
            votes[choice] = votes.get(choice, 0) + 1
    return max(votes, key=votes.__getitem__, default=None)


def is_looping(text: str) -> bool:
    """Tell whether a text ends in degenerate repetition.

    It does if, for some p, its last m characters repeat with period p (each equals the one p before it), where
    m >= LOOP_REPEATS * p and m >= LOOP_CHARACTERS, all within its last LOOP_TAIL characters. The last repetition may be
    incomplete. Repetitions that differ in a single character, such as a counter, are not a loop. Linear time.

    Example:
        >>> is_looping("So x = 2. " + "Wait, let me check again. " * 4)
        True
        >>> is_looping("i=h*5=9*5=5;j=i+9=5+9=4;k=j+9=4+9=3;")
        False
    """
    backwards = text[: -LOOP_TAIL - 1 : -1]
    # Knuth-Morris-Pratt failure function: the smallest period of a prefix is its length minus its longest border.
    borders = [0] * len(backwards)
    border = 0
    for index in range(1, len(backwards)):
        while border and backwards[index] != backwards[border]:
            border = borders[border - 1]
        border += backwards[index] == backwards[border]
        borders[index] = border
        length = index + 1
        if length >= LOOP_CHARACTERS and length >= LOOP_REPEATS * (length - border):
            return True
    return False
