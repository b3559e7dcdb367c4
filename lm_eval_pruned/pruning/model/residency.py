"""Presence: weights are in memory while somebody works with them, wherever they are before and after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class Presence(Protocol):
    """Brings the weights of parts of a model into memory, and lets them go again."""

    def of(self, part: nn.Module) -> AbstractContextManager[object]:
        """Hold the weights of a block, or of a module outside the blocks, for the length of a `with` block.

        What is changed in them is gone behind it, unless they were in memory before.
        """

    def each(self, parts: Sequence[nn.Module]) -> Iterator[nn.Module]:
        """Yield parts one after another, each with its weights while it is at hand."""

    def running(self) -> AbstractContextManager[object]:
        """Let the whole model run within a `with` block: what a forward pass comes to is there when it does."""

    def device(self, model: nn.Module) -> torch.device:
        """Return where the weights of `model` are once they are in memory."""

    def parts(self, model: nn.Module) -> Sequence[nn.Module]:
        """Return modules that together hold all parameters of `model`, in its order."""


class InMemory:
    """The presence of a loaded model: everything is there all the time."""

    def of(self, part: nn.Module) -> AbstractContextManager[object]:
        """Do nothing."""
        del part
        return nullcontext()

    def each(self, parts: Sequence[nn.Module]) -> Iterator[nn.Module]:
        """Yield what is given."""
        yield from parts

    def running(self) -> AbstractContextManager[object]:
        """Do nothing."""
        return nullcontext()

    def device(self, model: nn.Module) -> torch.device:
        """Return where the first of them is."""
        return next(model.parameters()).device

    def parts(self, model: nn.Module) -> Sequence[nn.Module]:
        """Return the model as a whole."""
        return [model]


IN_MEMORY = InMemory()
