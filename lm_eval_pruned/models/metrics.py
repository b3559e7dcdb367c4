"""Metrics of several samples of one question: pass@k and majority vote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb

from lm_eval_pruned.errors import ArgumentError


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
