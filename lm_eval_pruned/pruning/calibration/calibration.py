"""Calibration windows, identified by a digest before they exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lm_eval_pruned.pruning.artifacts.fingerprint import windows_digest
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.calibration.counted import counted_tokens


class Calibration(NamedTuple):
    """Calibration windows that may not exist yet: a digest that identifies them, and a function that makes them."""

    identity: str
    windows: Callable[[], Windows]

    @classmethod
    def of(cls, windows: Windows) -> Calibration:
        """Wrap windows that exist."""
        counted = [one for one in counted_tokens(windows) if one is not None]
        return cls(windows_digest([*windows, *counted]), lambda: windows)
