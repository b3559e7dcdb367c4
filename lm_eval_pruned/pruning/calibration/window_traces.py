"""Calibration windows as traces, along which a dense model and candidates of a search are compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lm_eval_pruned.divergence.traces import TokenTrace
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.calibration.counted import CountedWindows


def window_traces(windows: Windows) -> list[TokenTrace]:
    """Return windows as traces without a prompt: each token but the first has a distribution before it.

    Raises:
        ArgumentError: they have no such token.
    """
    rows: list[list[int]] = [window.tolist() for window in windows]
    traces = [
        TokenTrace(question=str(index), ids=tuple(row), start=1, thinking=0)
        for index, row in enumerate(rows)
        if len(row) > 1
    ]
    if not traces:
        raise ArgumentError("a search needs windows of at least two tokens, as one token predicts nothing")
    return traces


def counted_responses(windows: Windows) -> NDArray[np.bool_] | None:
    """Return which tokens of the responses of `window_traces`, joined, count; None where all do.

    Raises:
        ArgumentError: none does.
    """
    if not isinstance(windows, CountedWindows):
        return None
    counted = windows.counted[:, 1:].flatten().numpy()
    if not counted.any():
        raise ArgumentError("no token of the windows that a search compares counts: give longer ones, or more of them")
    return counted
