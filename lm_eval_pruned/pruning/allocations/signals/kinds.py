"""The `Signal` type: a number per decoder block, measured on the dense model, that an allocation reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, PruningError
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.model.decoder import Decoder, Linear
from lm_eval_pruned.pruning.model.flops import Work
from lm_eval_pruned.pruning.model.shapes import Architecture, WindowShape
from lm_eval_pruned.pruning.model.structure import Sublayer


class Needs(IntEnum):
    """What a signal reads of the dense model; each level includes those before it."""

    NOTHING = 0
    WEIGHTS = 1
    ACTIVATIONS = 2
    GRADIENTS = 3


@dataclass(frozen=True, slots=True)
class AllocationGroup:
    """The Linears, block by block, whose sparsity is allocated together: attention, MLP, or both."""

    blocks: tuple[tuple[Linear, ...], ...]

    @classmethod
    def of(cls, decoder: Decoder, sublayers: Sequence[Sublayer]) -> AllocationGroup:
        """Collect the Linears of the given sublayers of every block."""
        return cls(tuple(tuple(one for one in block.linears if one.sublayer in sublayers) for block in decoder.blocks))

    def sizes(self) -> Float[Tensor, " blocks"]:
        """Return the number of weights in each block."""
        return torch.tensor([sum(one.weight.numel() for one in linears) for linears in self.blocks]).double()


class DenseModel(NamedTuple):
    """A model before pruning, with its allocation groups and the calibration windows, if any.

    `journal` is a file in which a long measurement may note what an interrupted one need not repeat, if there is one.
    `measured` has values of `Signal.of_matrix` that are known already, by the name of their Linear.
    """

    decoder: Decoder
    groups: Sequence[AllocationGroup]
    windows: Windows | None
    journal: Path | None = None
    measured: Mapping[str, float] = MappingProxyType({})

    def required_windows(self) -> Windows:
        """Return the calibration windows.

        Raises:
            ArgumentError: there are none.
        """
        if self.windows is None:
            raise ArgumentError("this allocation needs calibration windows: pass token ids [samples, seqlen]")
        return self.windows


OfMatrix = Callable[[Float[Tensor, "out in"]], float]


def measure_matrix(of_matrix: OfMatrix, linear: Linear) -> float:
    """Return the value of `Signal.of_matrix` for the weight of a Linear.

    Raises:
        PruningError: as `of_matrix`, with the name of the Linear.
    """
    try:
        return of_matrix(linear.weight)
    except PruningError as error:
        raise PruningError(f"{linear.name}: {error}") from None


@runtime_checkable
class Measure(Protocol):
    """A function that measures a signal and leaves the model as it is.

    The weights of a block may be offloaded: read them within `with dense.decoder.residency.onload(block.module)`.
    """

    def __call__(self, dense: DenseModel, config: PruneConfig) -> Float[Tensor, "groups blocks"]:
        """Signal [groups blocks] in float64; `config` has the model arguments that `Signal.settings` names."""


@runtime_checkable
class CountWork(Protocol):
    """A function that counts the operations of a measurement."""

    def __call__(self, architecture: Architecture, windows: WindowShape, config: PruneConfig) -> Work:
        """Operations, from shapes and the model arguments that `Signal.settings` names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A quantity measured on the dense model, with what callers need to know to plan for it.

    Attributes:
        name: identifies it in plans.
        needs: what it reads of the model.
        measure: the measurement.
        work: the operations it takes, for cost estimates.
        description: noun phrase for `lm-eval-pruned plan`.
        settings: model arguments that it reads.
        scores_whole_blocks: whether it holds the scores of all Linears of a block at the same time.
        runs_whole_model: whether it runs the whole model, besides taking gradients.
        least_windows: fewest calibration windows that it can be measured with.
        is_stored: whether artifacts and reports hold it, because it is expensive to measure.
        of_matrix: a function of one weight [out in], if the signal reads nothing of a model but its value for each
            matrix. An offloaded model is then measured while it is hashed, which saves one reading of the weights.
    """

    name: str
    needs: Needs
    measure: Measure
    work: CountWork
    description: str
    settings: tuple[str, ...] = ()
    scores_whole_blocks: bool = False
    runs_whole_model: bool = False
    least_windows: int = 1
    is_stored: bool = False
    of_matrix: OfMatrix | None = None

    @property
    def needs_windows(self) -> bool:
        """Whether calibration windows are run through the model."""
        return self.needs >= Needs.ACTIVATIONS

    @property
    def needs_gradients(self) -> bool:
        """Whether gradients are taken, which run through the whole model."""
        return self.needs >= Needs.GRADIENTS
