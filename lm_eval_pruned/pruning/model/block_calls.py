"""Results of the check that decoder blocks, called one by one as calibration does, compute what the model computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(slots=True)
class BlockCalls:
    """State of the check, filled in by `calibration/replay.py` and kept for all calibrations of one model.

    Attributes:
        window: token ids that the model was run with, if it was.
        expected: digests of the inputs of each block, and of the output of the last one, in that run.
        all_match: whether all blocks were found to compute what they compute in the model.
    """

    window: Tensor | None = None
    expected: Sequence[bytes] = ()
    all_match: bool = False
