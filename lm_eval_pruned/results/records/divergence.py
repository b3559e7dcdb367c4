"""The divergence of a pruned model, as it stands beside its accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Divergence(NamedTuple):
    """What pruning changed along the dense model's responses, with 95 % intervals by question, None if unknown.

    Attributes:
        path: the file it was read from.
        fingerprint: of the pruned model.
        kl: KL(dense || pruned) in nats a token.
        survive: share of the responses in which no argmax changed.
        approximation: what `kl` is if it is not exact.
    """

    path: Path
    fingerprint: str
    kl: float
    kl_low: float | None
    kl_high: float | None
    survive: float
    survive_low: float | None
    survive_high: float | None
    approximation: str = ""
