"""Weight residency: onload the weights of a module for a `with` block, and offload them afterwards.

Code that prunes or measures asks for weights through this protocol, so that it works alike on a model in memory
(`Resident`) and on one whose weights stay in its checkpoint (`checkpoint.offload.Offloaded`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class Residency(Protocol):
    """Onloads the weights of modules and offloads them again."""

    def onload(self, module: nn.Module) -> AbstractContextManager[object]:
        """Keep the weights of a block, or of a module outside the blocks, in memory for a `with` block.

        Changes to them are lost afterwards unless the model is resident.
        """

    def onload_each(self, modules: Sequence[nn.Module]) -> Iterator[nn.Module]:
        """Yield modules one after another, each with its weights in memory until the next one is asked for."""

    def forward_pass(self) -> AbstractContextManager[object]:
        """Let the whole model run within a `with` block: each module is onloaded when the forward pass reaches it."""

    def device(self, model: nn.Module) -> torch.device:
        """Return the device of the weights of `model` once they are onloaded."""

    def modules(self, model: nn.Module) -> Sequence[nn.Module]:
        """Return modules that together hold all parameters of `model`, in its order."""


class Resident:
    """The residency of a loaded model: all weights are in memory all the time."""

    def onload(self, module: nn.Module) -> AbstractContextManager[object]:
        """Do nothing."""
        del module
        return nullcontext()

    def onload_each(self, modules: Sequence[nn.Module]) -> Iterator[nn.Module]:
        """Yield the given modules."""
        yield from modules

    def forward_pass(self) -> AbstractContextManager[object]:
        """Do nothing."""
        return nullcontext()

    def device(self, model: nn.Module) -> torch.device:
        """Return the device of the first parameter."""
        return next(model.parameters()).device

    def modules(self, model: nn.Module) -> Sequence[nn.Module]:
        """Return the model itself."""
        return [model]


RESIDENT = Resident()
