"""Selecting: the lowest of very many scores are found by counting, and only the few around the last one are ranked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

# Gives the scores of some rows of a matrix, as often as it is asked for them.
ScoreRows = Callable[[slice], Float[Tensor, "some columns"]]

# A piece of this many scores stays in the cache of a core from one step to the next.
PIECE = 1 << 19
# So many scores say between which two the last one to go lies: it is within a hundredth of all, and hardly ever is not.
SAMPLE = 1 << 16
MARGIN = 0.01


def pieces(rows: int, columns: int) -> list[slice]:
    """Return slices that together are all rows, each no more than fits into the cache of a core."""
    step = max(1, PIECE // columns)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def keep_highest_of_many(score: ScoreRows, rows: int, columns: int, zeros: int) -> Bool[Tensor, "rows columns"]:
    """Mark all but the `zeros` lowest float32 scores on a CPU; none is NaN, and among equal scores the first ones go.

    Scores are asked for some rows at a time, twice, and never are in memory together.

    Example:
        >>> score = torch.tensor([[3.0, 1.0], [-1.0, 1.0], [2.0, 4.0]])
        >>> keep_highest_of_many(lambda some: score[some], 3, 2, 2).tolist()
        [[True, False], [False, True], [True, True]]
    """
    share = -(-rows // torch.get_num_threads())
    spans = [range(start, min(start + share, rows)) for start in range(0, rows, share)]
    keep = np.empty((rows, columns), dtype=np.bool_)
    with ThreadPoolExecutor(len(spans)) as pool:

        def over(low: float, high: float) -> _Counted:
            counted = [*pool.map(partial(_count, score, columns, low, high), spans)]
            return _Counted(sum(part.below for part in counted), np.concatenate([part.between for part in counted]))

        below, between = over(*_bracket(score, rows, columns, zeros / (rows * columns)))
        if not below < zeros <= below + len(between):
            below, between = over(-np.inf, np.inf)
        between.partition(zeros - below - 1)
        last = float(between[zeros - below - 1])
        room = zeros - below - int(np.count_nonzero(between < last))
        ties = np.concatenate([*pool.map(partial(_mark, score, columns, last, keep), spans)])
    keep.reshape(-1)[ties[:room]] = False
    return torch.from_numpy(keep)


class _Counted(NamedTuple):
    below: int
    between: NDArray[np.float32]


def _bracket(score: ScoreRows, rows: int, columns: int, quantile: float) -> tuple[float, float]:
    """Guess from a sample between which scores, both included, a quantile lies."""
    width = min(columns, int(SAMPLE**0.5))
    sample = score(slice(None, None, -(-rows * width // SAMPLE)))[:, :: columns // width].flatten().sort().values
    at = torch.tensor([quantile - MARGIN, quantile + MARGIN]).mul(len(sample)).round().long()
    low, high = sample[at.clamp(0, len(sample) - 1)].tolist()
    return low, high


def _scores(score: ScoreRows, columns: int, span: range) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for piece in pieces(len(span), columns):
        rows = slice(span.start + piece.start, span.start + piece.stop)
        yield rows.start, score(rows).numpy()


def _count(score: ScoreRows, columns: int, low: float, high: float, span: range) -> _Counted:
    below, between = 0, []
    for _, scores in _scores(score, columns, span):
        under = scores < low
        below += int(np.count_nonzero(under))
        between.append(scores[under ^ (scores <= high)])
    return _Counted(below, np.concatenate(between))


def _mark(score: ScoreRows, columns: int, last: float, keep: NDArray[np.bool_], span: range) -> NDArray[np.intp]:
    """Mark in `keep` what is not below `last`; return where in the whole matrix scores equal it."""
    ties = []
    for start, scores in _scores(score, columns, span):
        np.greater_equal(scores, last, out=keep[start : start + len(scores)])
        ties.append(np.flatnonzero(scores == last) + start * columns)
    return np.concatenate(ties)
