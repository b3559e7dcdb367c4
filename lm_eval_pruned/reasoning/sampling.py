"""Sample tokens with Gumbel noise from a counter-based generator, so that no text depends on its batch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lm_eval_pruned.errors import ArgumentError

# The generator of the noise; a stored response of another one is not continued.
NOISE = "splitmix64"
# SplitMix64: the distance of two states, and the multipliers with which a state is mixed; as signed integers.
INCREMENT = 0x9E3779B97F4A7C15 - (1 << 64)
MULTIPLIERS = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))

# Tokens that are ranked for top_p without top_k; where they do not decide, the whole vocabulary is.
CANDIDATES = 1024
# What stands for a token where they do not, as the tokens before one of them have a share this near to top_p: sums of
# float32 in another order differ in their last bits.
UNDECIDED = -1
MARGIN = 1e-5


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


def derive_seed(*parts: object) -> int:
    """Hash `parts` into a seed of 63 bits.

    Example:
        >>> derive_seed(7, "question", 0) == derive_seed(7, "question", 1)
        False
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Draw(NamedTuple):
    """What one token per row is drawn from: logits [rows vocab], and the key of the noise of each row."""

    logits: Float[Tensor, "rows vocab"]
    sampling: Sampling
    keys: Int[Tensor, " rows"]


def sample_all(draws: Sequence[Draw]) -> list[int]:
    """Draw the tokens of all rows of all draws, as `sample_tokens` does.

    The host waits once for the device, and once more if there are rows whose top_p needs the whole vocabulary ranked.
    """
    tokens: list[int] = torch.cat([sample_tokens(*draw, candidates=CANDIDATES) for draw in draws]).tolist()
    if UNDECIDED not in tokens:
        return tokens
    again, start = [], 0
    for logits, sampling, keys in draws:
        rows = [row for row, token in enumerate(tokens[start : start + len(keys)]) if token == UNDECIDED]
        start += len(keys)
        if rows:
            chosen = torch.tensor(rows).to(keys.device, non_blocking=True)
            again.append(sample_tokens(logits.index_select(0, chosen), sampling, keys.index_select(0, chosen)))
    whole = iter(torch.cat(again).tolist())
    return [next(whole) if token == UNDECIDED else token for token in tokens]


def sample_tokens(
    logits: Float[Tensor, "rows vocab"],
    sampling: Sampling,
    keys: Int[Tensor, " rows"],
    *,
    candidates: int | None = None,
) -> Int[Tensor, " rows"]:
    """Draw one token per row from softmax(logits / temperature) after top_k, top_p and min_p, in this order.

    The Gumbel maximum trick, argmax(logits + g). The noise of a token is a function of its id and of the key of its
    row: the same row at the same position gets the same noise, whatever else is in the batch, on any device, and
    however often generation was resumed. Nothing waits for the device.

    Args:
        logits: next-token logits [rows vocab].
        sampling: temperature and filters, the same for all rows.
        keys: one 64-bit integer per row, of its seed and position.
        candidates: how many tokens are ranked for top_p without top_k; `UNDECIDED` is returned where they are too few.

    Reference: Maddison et al. 2014, arXiv 1411.0030.
    """
    if not sampling.is_random:
        return logits.argmax(dim=-1)
    scaled = logits.float() / sampling.temperature
    noise = gumbel_noise(keys, scaled.shape[-1])
    if candidates and candidates < scaled.shape[-1] and sampling.top_k <= 0 and sampling.top_p < 1:
        least, decided = least_of_candidates(scaled, sampling, candidates)
    else:
        least, decided = least_kept(scaled, sampling), None
    tokens = noise.add_(scaled).masked_fill_(scaled < least, -torch.inf).argmax(dim=-1)
    return tokens if decided is None else tokens.masked_fill_(~decided, UNDECIDED)


def least_kept(scaled: Float[Tensor, "rows vocab"], sampling: Sampling) -> Float[Tensor, "rows 1"]:
    """Return the lowest logit per row that top_k, top_p and min_p keep; tokens as likely as the last one stay.

    A `top_k` of -1 is no limit, as in vLLM.

    Example:
        >>> logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
        >>> least_kept(logits, Sampling(temperature=1.0, top_k=2)).exp()
        tensor([[0.3000]])
        >>> least_kept(logits, Sampling(temperature=1.0, top_p=0.81)).exp()
        tensor([[0.1500]])
    """
    least = torch.full_like(scaled[:, :1], -torch.inf)
    vocab = scaled.shape[-1]
    if 0 < sampling.top_k < vocab or sampling.top_p < 1:
        # With top_k, only those few are ranked.
        ranked = scaled.topk(min(sampling.top_k, vocab) if sampling.top_k > 0 else vocab).values
        shares = ranked.softmax(dim=-1)
        # A token stays if those before it do not reach top_p.
        before = shares.cumsum(dim=-1) - shares
        least = ranked.masked_fill(before >= sampling.top_p, torch.inf).amin(dim=-1, keepdim=True)
    return _bounded(least, scaled.amax(dim=-1, keepdim=True), sampling)


def least_of_candidates(
    scaled: Float[Tensor, "rows vocab"], sampling: Sampling, candidates: int
) -> tuple[Float[Tensor, "rows 1"], Bool[Tensor, " rows"]]:
    """Return what `least_kept` does with top_p and without top_k, and where it is sure, from the likeliest tokens.

    Sorting a vocabulary of 152,000 takes twenty times as long as finding 1,024 of them.
    """
    ranked = scaled.topk(candidates).values
    best = ranked[:, :1]
    shares = (ranked - best).exp() / (scaled - best).exp_().sum(dim=-1, keepdim=True)
    before = shares.cumsum(dim=-1) - shares
    least = ranked.masked_fill(before >= sampling.top_p, torch.inf).amin(dim=-1, keepdim=True)
    # Shares that are not a number decide nothing either.
    decided = (before[:, -1] >= sampling.top_p) & ((before - sampling.top_p).abs() > MARGIN).all(dim=-1)
    return _bounded(least, best, sampling), decided


def _bounded(
    least: Float[Tensor, "rows 1"], best: Float[Tensor, "rows 1"], sampling: Sampling
) -> Float[Tensor, "rows 1"]:
    """Return the lowest logit that min_p keeps as well; the likeliest token always stays."""
    if sampling.min_p > 0:
        least = torch.maximum(least, best + math.log(sampling.min_p))
    return torch.minimum(least, best)


def gumbel_noise(keys: Int[Tensor, " rows"], vocab: int) -> Float[Tensor, "rows vocab"]:
    """Return standard Gumbel noise of a counter-based generator, the same on every device.

    SplitMix64 at the states key + n * increment: tokens 2n and 2n + 1 get the halves of its n-th output.

    Reference: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators".
    """
    state = torch.arange(1, vocab // 2 + 2, device=keys.device).mul_(INCREMENT) + keys[:, None]
    for shift, multiplier in zip((30, 27), MULTIPLIERS, strict=True):
        state.bitwise_xor_(shifted(state, shift)).mul_(multiplier)
    state.bitwise_xor_(shifted(state, 31))
    # 31 bits as a uniform number in (0, 1); float32 keeps the small ones apart, which decide the maximum.
    uniform = state.view(torch.int32).bitwise_and_(0x7FFFFFFF)[:, :vocab].float().add_(0.5).mul_(2.0**-31)
    # The negative logarithm of an exponential variable.
    return uniform.neg_().log1p_().neg_().log_().neg_()


def shifted(state: Tensor, bits: int) -> Tensor:
    """Shift 64-bit integers of any shape to the right, as unsigned ones.

    Example:
        >>> shifted(torch.tensor([-1]), 62).item()
        3
    """
    return (state >> bits).bitwise_and_((1 << (64 - bits)) - 1)
