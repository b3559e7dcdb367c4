"""Sample tokens with Gumbel noise seeded per row and position, so that no text depends on its batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lm_eval_pruned.errors import ArgumentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Sampling parameters of the next token; a temperature of 0 is greedy decoding.

    Raises:
        ArgumentError: a value is out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ArgumentError(f"temperature={self.temperature}: give 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ArgumentError(f"top_p={self.top_p}: give 0 < top_p <= 1")
        if not 0 <= self.min_p < 1:
            raise ArgumentError(f"min_p={self.min_p}: give 0 <= min_p < 1")

    @property
    def is_random(self) -> bool:
        """Whether tokens are drawn: at a temperature, and from more than the likeliest one."""
        return self.temperature > 0 and self.top_k != 1

    def warpers(self) -> LogitsProcessorList:
        """Return the logits warpers of transformers, in its order; a top_k of -1 is no limit, as in vLLM."""
        warpers = LogitsProcessorList()
        if self.temperature != 1:
            warpers.append(TemperatureLogitsWarper(self.temperature))
        if self.top_k > 0:
            warpers.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1:
            warpers.append(TopPLogitsWarper(self.top_p))
        if self.min_p > 0:
            warpers.append(MinPLogitsWarper(self.min_p))
        return warpers


def derive_seed(*parts: object) -> int:
    """Hash `parts` into a seed of 63 bits.

    Example:
        >>> derive_seed(7, "question", 0) == derive_seed(7, "question", 1)
        False
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def sample_tokens(
    logits: Float[Tensor, "rows vocab"], sampling: Sampling, seeds: Sequence[int], positions: Sequence[int]
) -> Int[Tensor, " rows"]:
    """Draw one token per row from softmax(logits / temperature) after top_k, top_p and min_p.

    The Gumbel maximum trick, argmax(logits + g) with g from a generator seeded by (seed, position): the same row at the
    same position gets the same noise, whatever else is in the batch and however often generation was resumed.

    Args:
        logits: next-token logits [rows vocab].
        sampling: temperature and filters, the same for all rows.
        seeds: one per row.
        positions: index of the token to draw in its sequence, one per row.

    Reference: Maddison et al. 2014, arXiv 1411.0030.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    # None of these warpers reads the ids generated so far.
    warped = sampling.warpers()(torch.LongTensor(), logits.float())
    generator = torch.Generator(device=logits.device)
    exponential = torch.empty_like(warped)
    for row, (seed, position) in enumerate(zip(seeds, positions, strict=True)):
        generator.manual_seed(derive_seed(seed, position))
        exponential[row].exponential_(generator=generator)
    # An exponential variable is exp(-g): subtracting its logarithm adds Gumbel noise.
    return (warped - exponential.log()).argmax(dim=-1)
