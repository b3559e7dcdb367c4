"""What a calibration observes: the Linears of each block, and the statistic of their inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from lm_eval_pruned.pruning.calibration.statistics import Statistic
from lm_eval_pruned.pruning.model.decoder import Block, Linear

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed(Generic[Result]):
    """What a calibration observes.

    Attributes:
        linears: the Linears to observe, by index of their block.
        collect: makes an empty statistic.
        dense: whether later blocks are calibrated on the outputs of dense blocks, or of pruned ones.
    """

    linears: Mapping[int, Sequence[Linear]]
    collect: Callable[[], Statistic[Result]]
    dense: bool

    def of(self, block: Block) -> Sequence[Linear]:
        """Return the observed Linears of a block."""
        return self.linears.get(block.index, ())
