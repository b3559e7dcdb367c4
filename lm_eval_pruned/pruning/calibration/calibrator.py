"""Calibrate block after block: by calling single blocks where that gives what the model computes, else whole passes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch

from lm_eval_pruned.pruning.calibration.activations import Activations, Windows
from lm_eval_pruned.pruning.calibration.counted import counted_tokens
from lm_eval_pruned.pruning.calibration.observed import Observed
from lm_eval_pruned.pruning.calibration.recording import Recording, record
from lm_eval_pruned.pruning.calibration.replay import NeedsWholeModelError, Replay
from lm_eval_pruned.pruning.calibration.whole_passes import OnCall, WholePasses, visit_calls
from lm_eval_pruned.pruning.model.decoder import Block, Decoder
from lm_eval_pruned.pruning.model.residency import RESIDENT

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


@runtime_checkable
class Calibrator(Protocol[Result]):
    """Statistics of the inputs of Linears, block after block; each block is onloaded, in the order of the model."""

    def measure(self, block: Block) -> dict[str, Result]:
        """Return the statistics of the observed Linears of `block`, by name; experts without a token have none.

        Raises:
            PruningError: a Linear is never called, or its inputs are not finite.
        """

    def advance(self, block: Block) -> None:
        """Let later blocks see what `block`, pruned by now, writes."""


@dataclass(slots=True, kw_only=True)
class BlockByBlock(Generic[Result]):
    """A `Calibrator` that runs all windows through one block at a time."""

    activations: Activations
    replay: Replay
    observed: Observed[Result]
    last: Block

    def measure(self, block: Block) -> dict[str, Result]:
        """Run the block up to the last input that is needed, or to its end where its dense outputs are propagated."""
        self.replay.check(block)
        linears = self.observed.of(block)
        if not linears:
            return {}
        return self.activations.measure(block, linears, self.observed.collect, advance=self._has_advanced(block))

    def advance(self, block: Block) -> None:
        """Run the block to its end, unless that was done or nothing follows."""
        if block is not self.last and not self._has_advanced(block):
            self.activations.advance(block)
        self.replay.leave(block)

    def _has_advanced(self, block: Block) -> bool:
        return self.observed.dense and block is not self.last and bool(self.observed.of(block))


def calibrate(
    decoder: Decoder, windows: Windows, observed: Observed[Result], on_window: Callable[[int], object]
) -> Calibrator[Result]:
    """Return what calibrates the blocks of a model, in order.

    Args:
        decoder: the model.
        windows: calibration token ids.
        observed: the Linears and the statistic.
        on_window: called with the number of blocks that were calibrated with a window.

    Raises:
        NeedsWholeModelError: an offloaded model whose blocks cannot be called one by one.
    """
    recording = _recorded(decoder, windows)
    if recording is None:
        return WholePasses(decoder=decoder, windows=windows, observed=observed, on_window=on_window)
    activations, replay = recording
    activations.on_window = lambda: on_window(1)
    return BlockByBlock(activations=activations, replay=replay, observed=observed, last=decoder.blocks[-1])


@torch.no_grad()
def visit_outputs(
    decoder: Decoder,
    blocks: Sequence[Block],
    windows: Windows,
    on_call: OnCall,
) -> None:
    """Call `on_call(block, before, after, counted)` with the hidden states before and after each call of a block.

    Args:
        decoder: the model.
        blocks: the first blocks of the model; others are visited only where blocks cannot be called one by one.
        windows: calibration token ids.
        on_call: called for each block with all windows in order.

    Raises:
        NeedsWholeModelError: as `calibrate`.
    """
    recording = _recorded(decoder, windows)
    if recording is None:
        for window, counted in zip(windows, counted_tokens(windows), strict=True):
            visit_calls(decoder, window, counted, on_call)
        return
    activations, replay = recording
    onloaded = decoder.residency.onload_each([block.module for block in blocks])
    for _, block in zip(onloaded, blocks, strict=True):
        replay.check(block)
        for (before, after), counted in zip(activations.steps(block), activations.counted, strict=True):
            on_call(block, before, after, counted)
        replay.leave(block)


def _recorded(decoder: Decoder, windows: Windows) -> Recording | None:
    why = f"{type(decoder.model).__name__} calls its blocks more than once, or they share weights or pass on values"
    recording = None
    try:
        if not decoder.shares_weights:
            recording = record(decoder, windows)
    except RuntimeError as error:
        # What torch raises for a product with an offloaded weight.
        if decoder.residency is RESIDENT or "meta" not in str(error):
            raise
        why = f"{type(decoder.model).__name__} uses weights outside of the modules that hold them"
    if recording is not None:
        return recording
    if decoder.residency is not RESIDENT:
        raise NeedsWholeModelError(f"{why}: its weights have to be in memory all at once to calibrate it")
    logger.info("%s: whole passes calibrate it", why)
    return None
