"""Hidden states of the calibration windows, carried from block to block without naming what a block needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.blocks import Block, Linear
from lm_eval_pruned.pruning.stats import InputNorm, InputStatistics


class _Stop(BaseException):
    """Ends a forward pass where nothing behind is wanted; not an Exception, so that no model's handler eats it."""


class Call(NamedTuple):
    """What a block is called with besides the hidden states: rotary embeddings, masks, whatever the model passes."""

    arguments: tuple[object, ...]
    keywords: dict[str, object]

    def __call__(self, block: nn.Module, hidden: Tensor) -> Tensor:
        """Return the hidden states behind `block`; some releases of transformers wrap them in a tuple."""
        output: Tensor | tuple[Tensor, ...] = block(hidden, *self.arguments, **self.keywords)
        return output[0] if isinstance(output, tuple) else output


@dataclass(slots=True)
class Activations:
    """The inputs of the block at hand, one tensor [1 seqlen hidden] a window, and how each block is called.

    Windows go one at a time, so that no result depends on a batch size.
    """

    hidden: list[Tensor]
    calls: list[Call]

    @classmethod
    @torch.no_grad()
    def capture(cls, model: nn.Module, blocks: Sequence[Block], windows: Int[Tensor, "samples seqlen"]) -> Activations:
        """Embed all windows, and record from one whole forward pass what the model hands to each block."""
        device = next(model.parameters()).device
        calls: list[Call] = []
        hidden: list[Tensor] = []

        def record(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
            calls.append(_split(arguments, keywords)[1])
            if module is blocks[-1].module:
                raise _Stop

        def embed(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
            hidden.append(_split(arguments, keywords)[0])
            raise _Stop

        def run(window: Tensor) -> None:
            with suppress(_Stop):
                model(input_ids=window[None].to(device), use_cache=False)

        with _hooked(block.module.register_forward_pre_hook(record, with_kwargs=True) for block in blocks):
            run(windows[0])
        with _hooked([blocks[0].module.register_forward_pre_hook(embed, with_kwargs=True)]):
            for window in windows:
                run(window)
        return cls(hidden=hidden, calls=calls)

    @torch.no_grad()
    def measure(self, block: Block, linears: Sequence[Linear], *, advance: bool) -> dict[str, InputStatistics]:
        """Run all windows through `block` and return the statistics of the inputs of `linears`.

        Linears that are fed the very same tensor (q, k, v; gate, up) share one statistic. With `advance` the outputs
        become the hidden states of the next block; without, each pass ends at the last input that is wanted.
        """
        leaders: dict[str, str] = {}
        statistics: dict[str, InputNorm] = {}
        fed: list[tuple[Tensor, str]] = []  # holds the inputs, so that none of them can reuse another's memory

        def discover(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
                leaders[name] = next((leader for tensor, leader in fed if tensor is arguments[0]), name)
                if leaders[name] == name:
                    fed.append((arguments[0], name))
                    statistics.setdefault(name, InputNorm()).update(arguments[0])

            return hook

        def observe(name: str, *, last: bool) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
                statistics[name].update(arguments[0])
                if last:
                    raise _Stop

            return hook

        with _hooked(linear.module.register_forward_pre_hook(discover(linear.name)) for linear in linears):
            self._run(block, slice(0, 1), keep_output=advance)
        fed.clear()
        silent = [linear.name for linear in linears if linear.name not in leaders]
        if silent:
            raise PruningError(f"{silent[0]} is never called in the forward pass of its block: it cannot be calibrated")
        last = None if advance else next(reversed(statistics))
        with _hooked(
            linear.module.register_forward_pre_hook(observe(linear.name, last=linear.name == last))
            for linear in linears
            if linear.name in statistics
        ):
            self._run(block, slice(1, None), keep_output=advance)
        results = {name: statistic.result() for name, statistic in statistics.items()}
        for name, result in results.items():
            if not result.norm.isfinite().all():
                raise PruningError(f"the inputs of {name} overflow or are not numbers: load in float32 or bfloat16")
        return {name: results[leader] for name, leader in leaders.items()}

    @torch.no_grad()
    def advance(self, block: Block) -> None:
        """Replace every hidden state by the output of `block`."""
        self._run(block, slice(None), keep_output=True)

    def _run(self, block: Block, windows: slice, *, keep_output: bool) -> None:
        call = self.calls[block.index]
        for index in range(len(self.hidden))[windows]:
            with suppress(_Stop):
                output = call(block.module, self.hidden[index])
                if keep_output:
                    self.hidden[index] = output


def _split(arguments: tuple[object, ...], keywords: dict[str, object]) -> tuple[Tensor, Call]:
    """Separate the hidden states, first or named, from everything else."""
    if arguments:
        hidden, rest, named = arguments[0], arguments[1:], keywords
    else:
        hidden, rest = keywords["hidden_states"], ()
        named = {name: value for name, value in keywords.items() if name != "hidden_states"}
    assert isinstance(hidden, Tensor)
    return hidden, Call(rest, named)


@contextmanager
def _hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Keep hooks in place for the length of a `with` block."""
    kept = list(handles)
    try:
        yield
    finally:
        for handle in kept:
            handle.remove()
