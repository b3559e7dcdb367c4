"""Presence: weights are in memory while somebody works with them, wherever they are before and after."""

from __future__ import annotations

from collections.abc import Iterator
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

    def running(self) -> AbstractContextManager[object]:
        """Let the whole model run within a `with` block: what a forward pass comes to is there when it does."""

    def device(self, model: nn.Module) -> torch.device:
        """Return where the weights of `model` are once they are in memory."""

    def parts(self, model: nn.Module) -> Iterator[nn.Module]:
        """Yield modules that together hold all parameters of `model`, each with its weights while it is at hand."""


class InMemory:
    """The presence of a loaded model: everything is there all the time."""

    def of(self, part: nn.Module) -> AbstractContextManager[object]:
        """Do nothing."""
        del part
        return nullcontext()

    def running(self) -> AbstractContextManager[object]:
        """Do nothing."""
        return nullcontext()

    def device(self, model: nn.Module) -> torch.device:
        """Return where the first of them is."""
        return next(model.parameters()).device

    def parts(self, model: nn.Module) -> Iterator[nn.Module]:
        """Yield the model as a whole."""
        yield model


IN_MEMORY = InMemory()
