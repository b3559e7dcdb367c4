"""KL divergence and flips: two next-token distributions compared at each token, over the whole vocabulary."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# The size of one float32 matrix [tokens vocab]; about six are in memory at once.
CHUNK_BYTES = 96 << 20


class TokenDivergence(NamedTuple):
    """For each token [tokens]: KL(dense || pruned) in nats, whether the argmax changed, and the dense log-probability.

    The last one is that of the token which follows in the trace.
    """

    kl: Tensor
    flipped: Tensor
    logp: Tensor


def chunk_tokens(vocab: int) -> int:
    """Return how many tokens are compared at once, so that a float32 matrix of them has at most `CHUNK_BYTES`.

    Example:
        >>> chunk_tokens(151_936)
        165
    """
    return max(1, CHUNK_BYTES // (4 * vocab))


def compare(dense: Tensor, pruned: Tensor, following: Tensor) -> TokenDivergence:
    """Compare logits [tokens vocab] in float32; what is not finite in the logits leaves a KL that is not finite.

    KL(p || q) = sum_v p_v (log p_v - log q_v), in which a token of probability 0 under p counts 0.

    Args:
        dense: logits of the dense model.
        pruned: logits of the pruned model.
        following: the token id that follows at each position [tokens].

    Example:
        >>> logits = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 3.0]])
        >>> found = compare(*logits, following=torch.tensor([1]))
        >>> round(found.kl.item(), 4), found.flipped.item(), round(found.logp.exp().item(), 2)
        (0.8554, True, 0.5)
    """
    flipped = dense.argmax(-1) != pruned.argmax(-1)
    log_p = torch.log_softmax(dense, -1, dtype=torch.float32)
    log_q = torch.log_softmax(pruned, -1, dtype=torch.float32)
    logp = log_p.gather(-1, following[:, None])[:, 0]
    p = log_p.exp()
    ratio = log_p.sub_(log_q)
    kl = torch.linalg.vecdot(p, ratio)
    if not kl.isfinite().all():
        # Logits of minus infinity, as some models give to the padding of their vocabulary: 0 (log 0 - log 0).
        kl = torch.linalg.vecdot(p, ratio.masked_fill_(p == 0, 0.0))
    return TokenDivergence(kl, flipped, logp)
