"""Threshold selection for large matrices: bracket the k-th score by sampling, then partition only the bracket."""

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

# Returns the scores of a slice of the rows of a matrix; may be called several times for the same rows.
ScoreRows = Callable[[slice], Float[Tensor, "some columns"]]

CPU = torch.device("cpu")

# Scores per slice of rows: few enough to stay in the cache of a core between two operations; on a GPU, enough to keep
# it busy, as the host waits for it twice a slice.
SLICE_SCORES = 1 << 19
SLICE_SCORES_ON_GPU = 1 << 24
# The bracket is the sampled quantile plus and minus a hundredth; it hardly ever misses the threshold.
SAMPLE = 1 << 16
MARGIN = 0.01


def row_slices(rows: int, columns: int, device: torch.device = CPU) -> list[slice]:
    """Split the rows of a matrix into slices that fit into the cache of a core, or that keep a GPU busy."""
    step = max(1, (SLICE_SCORES if device.type == "cpu" else SLICE_SCORES_ON_GPU) // columns)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def keep_highest_of_many(score: ScoreRows, rows: int, columns: int, zeros: int) -> Bool[Tensor, "rows columns"]:
    """Keep all but the `zeros` lowest scores of a matrix; among equal scores the first are removed.

    Scores are computed one slice of rows at a time, twice, and are never in memory together.

    Args:
        score: returns the float32 scores of a slice of rows, on the CPU and without NaN.
        rows: number of rows.
        columns: number of columns.
        zeros: number of scores to remove.

    Example:
        >>> score = torch.tensor([[3.0, 1.0], [-1.0, 1.0], [2.0, 4.0]])
        >>> keep_highest_of_many(lambda rows: score[rows], 3, 2, 2).tolist()
        [[True, False], [False, True], [True, True]]
    """
    share = -(-rows // torch.get_num_threads())
    spans = [range(start, min(start + share, rows)) for start in range(0, rows, share)]
    keep = np.empty((rows, columns), dtype=np.bool_)
    with ThreadPoolExecutor(len(spans)) as pool:

        def count(low: float, high: float) -> _Counted:
            counts = [*pool.map(partial(_count, score, columns, low, high), spans)]
            return _Counted(sum(one.below for one in counts), np.concatenate([one.between for one in counts]))

        below, between = count(*_bracket(score, rows, columns, zeros / (rows * columns)))
        if not below < zeros <= below + len(between):
            below, between = count(-np.inf, np.inf)
        between.partition(zeros - below - 1)
        threshold = float(between[zeros - below - 1])
        ties_to_remove = zeros - below - int(np.count_nonzero(between < threshold))
        ties = np.concatenate([*pool.map(partial(_mark, score, columns, threshold, keep), spans)])
    keep.reshape(-1)[ties[:ties_to_remove]] = False
    return torch.from_numpy(keep)


class _Counted(NamedTuple):
    """The number of scores below a bracket, and the scores in it."""

    below: int
    between: NDArray[np.float32]


def _bracket(score: ScoreRows, rows: int, columns: int, quantile: float) -> tuple[float, float]:
    """Estimate from a sample two scores, both inclusive, between which a quantile lies."""
    width = min(columns, int(SAMPLE**0.5))
    sample = score(slice(None, None, -(-rows * width // SAMPLE)))[:, :: columns // width].flatten().sort().values
    ranks = torch.tensor([quantile - MARGIN, quantile + MARGIN]).mul(len(sample)).round().long()
    low, high = sample[ranks.clamp(0, len(sample) - 1)].tolist()
    return low, high


def _scores(score: ScoreRows, columns: int, span: range) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for piece in row_slices(len(span), columns):
        rows = slice(span.start + piece.start, span.start + piece.stop)
        yield rows.start, score(rows).numpy()


def _count(score: ScoreRows, columns: int, low: float, high: float, span: range) -> _Counted:
    below, between = 0, []
    for _, scores in _scores(score, columns, span):
        under = scores < low
        below += int(np.count_nonzero(under))
        between.append(scores[under ^ (scores <= high)])
    return _Counted(below, np.concatenate(between))


def _mark(score: ScoreRows, columns: int, threshold: float, keep: NDArray[np.bool_], span: range) -> NDArray[np.intp]:
    """Set `keep` where scores are not below the threshold; return the flat indices of scores equal to it."""
    ties = []
    for start, scores in _scores(score, columns, span):
        np.greater_equal(scores, threshold, out=keep[start : start + len(scores)])
        ties.append(np.flatnonzero(scores == threshold) + start * columns)
    return np.concatenate(ties)
