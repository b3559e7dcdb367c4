"""Calibration by whole passes of the model: right for every architecture, and slow.

For blocks that cannot be called one by one (`recording.record`): looped blocks, several stacks of blocks, blocks that
share weights, values that pass between blocks. Statistics are of all calls of a block. With `propagate=dense`, one pass
of each window measures all blocks; with `propagate=pruned`, each block takes a pass of each window through the model as
it is by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from lm_eval_pruned.pruning.calibration.activations import State, StopForward, Windows, split_call
from lm_eval_pruned.pruning.calibration.counted import counted_tokens
from lm_eval_pruned.pruning.calibration.observed import Observed
from lm_eval_pruned.pruning.calibration.observing import Observer
from lm_eval_pruned.pruning.calibration.product_hook import Watch
from lm_eval_pruned.pruning.calibration.running import Forward, replaced_forward, run_model
from lm_eval_pruned.pruning.calibration.statistics import SharedInputs
from lm_eval_pruned.pruning.model.decoder import Block, Decoder
from lm_eval_pruned.pruning.model.experts import unfused_experts

Result = TypeVar("Result")

# Takes a block, the hidden states before and after one call of it, and which tokens count, None for all.
OnCall = Callable[[Block, Tensor, Tensor, Tensor | None], None]


@dataclass(slots=True, kw_only=True)
class WholePasses(Generic[Result]):
    """A `Calibrator` that runs the whole model.

    Attributes:
        decoder: the model, its weights in memory.
        windows: calibration token ids.
        observed: what is measured.
        on_window: called with the number of blocks that were calibrated with a window.
    """

    decoder: Decoder
    windows: Windows
    observed: Observed[Result]
    on_window: Callable[[int], object]
    _dense: dict[str, Result] | None = field(default=None)
    _repeats: bool | None = field(default=None)

    def measure(self, block: Block) -> dict[str, Result]:
        """Return the statistics of the Linears of `block`, by name.

        Raises:
            PruningError: a Linear is never called, or its inputs are not finite.
        """
        if not self.observed.dense:
            return self._measure([block])
        if self._dense is None:
            self._dense = self._measure(self.decoder.blocks)
        names = {linear.name for linear in self.observed.of(block)}
        return {name: result for name, result in self._dense.items() if name in names}

    def advance(self, block: Block) -> None:
        """Do nothing: the next pass runs the block as it is now."""

    @torch.no_grad()
    def _measure(self, blocks: Sequence[Block]) -> dict[str, Result]:
        linears = [linear for block in blocks for linear in self.observed.of(block)]
        inputs = SharedInputs(linears, self.observed.collect, share=False)
        observer, counted = Observer(linears, inputs), counted_tokens(self.windows)
        if any(one is not None for one in counted):
            observer.check_experts(self.decoder.model)

        if self._repeats is None:
            self._repeats = self.decoder.shares_weights or _calls_repeat(self.decoder, self.windows[0])
        # A block that is called once has seen all that it will see; what follows it need not be run.
        last = None if self._repeats or self.observed.dense else blocks[-1]
        with (
            unfused_experts(self.decoder.model),
            observer.experts_apart(self.decoder.model),
            Watch(linears, before=observer),
        ):
            for window, of_window in zip(self.windows, counted, strict=True):
                observer.begin_window(of_window)
                _run_until(self.decoder, window, last)
                self.on_window(len(blocks))
        return inputs.results()


@torch.no_grad()
def visit_calls(decoder: Decoder, window: Tensor, counted: Tensor | None, on_call: OnCall) -> None:
    """Run a window through the model, and call `on_call` after every call of a block."""

    def around(block: Block, forward: Forward) -> Forward:
        def called(*arguments: object, **keywords: object) -> object:
            # A copy, as some blocks write into their input.
            before = split_call(arguments, keywords)[0].clone()
            output = forward(*arguments, **keywords)
            on_call(block, before, State.of(output).hidden, counted)
            return output

        return called

    with replaced_forward(decoder.blocks, around):
        run_model(decoder, window)


def _calls_repeat(decoder: Decoder, window: Tensor) -> bool:
    calls: Counter[int] = Counter()

    def around(block: Block, forward: Forward) -> Forward:
        def counted(*arguments: object, **keywords: object) -> object:
            calls[block.index] += 1
            return forward(*arguments, **keywords)

        return counted

    with replaced_forward(decoder.blocks, around):
        run_model(decoder, window)
    return any(count > 1 for count in calls.values())


def _run_until(decoder: Decoder, window: Tensor, last: Block | None) -> None:
    def stop(*_: object) -> None:
        raise StopForward

    handle = None if last is None else last.module.register_forward_hook(stop)
    try:
        with suppress(StopForward):
            run_model(decoder, window)
    finally:
        if handle is not None:
            handle.remove()
