"""Token traces: prompts with responses as token ids, and batches of traces of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Padded tokens in one forward pass; a longer trace is a batch of its own.
BATCH_TOKENS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTrace:
    """One response with its prompt, as token ids.

    Attributes:
        question: key of the question; traces with the same key are samples of one question.
        ids: the prompt and then the response.
        start: number of tokens of the prompt, at least 1: the first token has no distribution before it.
        thinking: how many tokens of the response are thinking.
    """

    question: str
    ids: tuple[int, ...]
    start: int
    thinking: int

    @property
    def tokens(self) -> int:
        """Number of tokens of the response."""
        return len(self.ids) - self.start


def offsets(traces: Sequence[TokenTrace]) -> NDArray[np.int64]:
    """Return where the response of each trace begins when all are joined, and the total, [traces + 1].

    Example:
        >>> offsets([TokenTrace(question="a", ids=(7, 8, 9), start=1, thinking=2)]).tolist()
        [0, 2]
    """
    return np.cumsum([0, *(trace.tokens for trace in traces)])


def batches(traces: Sequence[TokenTrace], tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Return the indices of the traces of each batch: of similar length, at most `tokens` with their padding.

    Example:
        >>> lengths = (4, 1, 3)
        >>> batches([TokenTrace(question="", ids=(0,) * n, start=1, thinking=0) for n in lengths], tokens=8)
        [[0, 2], [1]]
    """
    found: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(traces)), key=lambda index: -len(traces[index].ids)):
        if not found or (len(found[-1]) + 1) * longest > tokens:
            found.append([])
            longest = len(traces[index].ids)
        found[-1].append(index)
    return found
