"""Calibration windows as traces, along which a dense model and candidates of a search are compared."""

from __future__ import annotations

from lm_eval_pruned.divergence.traces import TokenTrace
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.pruning.calibration.activations import Windows


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
