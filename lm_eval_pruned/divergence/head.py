"""A model in two parts: token ids to final hidden states, and final hidden states to logits."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

logger = logging.getLogger(__name__)

# What a model's own code raises when it expects more of its inner model than a hidden state.
_NOT_DIVISIBLE = (TypeError, ValueError, AttributeError, LookupError, RuntimeError)
# How far logits that are computed in two parts may be from the model's own, relative to the largest.
_TOLERANCE = 1e-3


@runtime_checkable
class TwoParts(Protocol):
    """A causal language model, divided where a token has few numbers: these can be kept, logits cannot."""

    @property
    def device(self) -> torch.device:
        """The device of token ids."""

    def states(self, ids: Tensor) -> Tensor:
        """Map token ids [rows tokens] to states [rows tokens width]."""

    def logits(self, states: Tensor) -> Tensor:
        """Map states [tokens width] to logits [tokens vocab]."""


@dataclass(frozen=True, slots=True)
class OwnHead:
    """The model's own code on both sides of its final hidden states, whatever that does to the logits.

    Soft-capping (Gemma), scales (Cohere, Granite) and the like are in the forward pass of the model, not in its head.
    So the logits of hidden states come from that forward pass, in which the inner model returns them.

    Attributes:
        model: the whole model.
        inner: the model within it that ends with the final hidden states.
        output: the class of the inner model's output, whose fields the whole model may read.
    """

    model: nn.Module
    inner: nn.Module
    output: type[ModelOutput]

    @property
    def device(self) -> torch.device:
        """The device of the embeddings."""
        return next(self.inner.parameters()).device

    def states(self, ids: Tensor) -> Tensor:
        """Map token ids [rows tokens] to final hidden states [rows tokens hidden]."""
        return cast("Tensor", self.inner(input_ids=ids, use_cache=False)[0])

    def logits(self, states: Tensor) -> Tensor:
        """Map final hidden states [tokens hidden] to logits [tokens vocab]."""
        with _returning(self.inner, self.output(last_hidden_state=states[None])):
            ids = torch.zeros(1, len(states), dtype=torch.long, device=self.device)
            return cast("Tensor", self.model(input_ids=ids, use_cache=False).logits[0])


@dataclass(frozen=True, slots=True)
class Whole:
    """A model that cannot be divided: its states are its logits."""

    model: nn.Module

    @property
    def device(self) -> torch.device:
        """The device of the first parameter."""
        return next(self.model.parameters()).device

    def states(self, ids: Tensor) -> Tensor:
        """Map token ids [rows tokens] to logits [rows tokens vocab]."""
        return cast("Tensor", self.model(input_ids=ids, use_cache=False).logits)

    def logits(self, states: Tensor) -> Tensor:
        """Return the states, which are logits."""
        return states


@torch.no_grad()
def divide(model: nn.Module, ids: Tensor) -> TwoParts:
    """Divide a model at its final hidden states, if its logits follow from them.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        ids: token ids [1 tokens] on which logits in two parts are compared with the model's own.
    """
    inner = getattr(model, "base_model", model)
    if inner is not model:
        own = model(input_ids=ids, use_cache=False).logits[0]
        try:
            output = inner(input_ids=ids, use_cache=False)
            parts = OwnHead(model, inner, type(output))
            computed = parts.logits(output.last_hidden_state[0])
        except _NOT_DIVISIBLE as error:
            logger.debug("logits do not follow from hidden states: %s", error)
        else:
            scale = float(own[own.isfinite()].abs().max()) if own.isfinite().any() else 1.0
            if own.shape == computed.shape and torch.allclose(
                computed, own, rtol=0, atol=_TOLERANCE * scale, equal_nan=True
            ):
                return parts
    logger.warning(
        "the logits of %s do not follow from its final hidden states alone: logits are stored, which takes the size of "
        "the vocabulary for each token",
        type(model).__name__,
    )
    return Whole(model)


@contextmanager
def _returning(inner: nn.Module, output: ModelOutput) -> Iterator[None]:
    """Let a module return a given output, in a `with` block."""
    # Set on the object where accelerate hooks into a model.
    own = vars(inner).get("forward")
    inner.forward = lambda *_, **__: output
    try:
        yield
    finally:
        if own is None:
            del inner.forward
        else:
            inner.forward = own
