"""Divergence from the largest log-probabilities alone: a lower bound of KL, without the whole vocabulary."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_pruned.divergence.measure import Divergences

# Tokens whose largest log-probabilities are matched at once.
_CHUNK = 256
# Rounding of a sum of float32 probabilities: less than this cannot be told from no remainder.
_ROUNDING = 1e-6


class Largest(NamedTuple):
    """The k largest log-probabilities before each token of some responses, the largest first.

    Attributes:
        ids: which tokens of the vocabulary they belong to [tokens k].
        logps: natural logarithms of their probabilities [tokens k].
        following: the log-probability of the token that follows [tokens].
    """

    ids: NDArray[np.int32]
    logps: NDArray[np.float32]
    following: NDArray[np.float32]


def compare_largest(dense: Largest, pruned: Largest) -> Divergences:
    """Compare two models at each token by the tokens of the vocabulary that both give, and all others as one.

    With C the tokens that are among the largest of both and p_C their sum,

        KL >= sum_{v in C} p_v log (p_v / q_v) + (1 - p_C) log ((1 - p_C) / (1 - q_C)),

    since merging outcomes never increases KL. With k the size of the vocabulary the two are equal. Flips are exact.

    Example:
        >>> ids = np.array([[0, 1]]), np.array([[1, 0]])
        >>> dense, pruned = (Largest(one, np.log([[0.5, 0.25]]), np.zeros(1)) for one in ids)
        >>> found = compare_largest(dense, pruned)
        >>> round(float(found.kl[0]), 4), found.flipped.tolist()  # 0.5 log 2 + 0.25 log 0.5
        (0.1733, [True])

    Reference: Cover and Thomas, Elements of Information Theory, theorem 2.7.1 (log-sum inequality).
    """
    kl = np.empty(len(dense.ids))
    for start in range(0, len(kl), _CHUNK):
        rows = slice(start, start + _CHUNK)
        same = dense.ids[rows, :, None] == pruned.ids[rows, None, :]
        log_p = dense.logps[rows].astype(np.float64)
        log_q = np.where(same, pruned.logps[rows, None, :].astype(np.float64), 0.0).sum(-1)
        shared = same.any(-1)
        p, q = (np.where(shared, np.exp(values), 0.0) for values in (log_p, log_q))
        rest_p, rest_q = (np.maximum(1 - values.sum(-1), _ROUNDING) for values in (p, q))
        kl[rows] = np.where(shared, p * (log_p - log_q), 0.0).sum(-1) + rest_p * np.log(rest_p / rest_q)
    flipped = dense.ids[:, 0] != pruned.ids[:, 0]
    return Divergences(np.maximum(kl, 0.0), flipped, dense.following.astype(np.float64))
