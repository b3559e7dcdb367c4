"""Hidden states of the calibration windows, carried from block to block without naming what a block needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lm_eval_pruned.pruning.calibration.product_hook import Watch
from lm_eval_pruned.pruning.calibration.statistics import SharedInputs, Statistic
from lm_eval_pruned.pruning.model.decoder import Block, Decoder, Linear
from lm_eval_pruned.pruning.model.experts import one_by_one

Result = TypeVar("Result")

# Token ids: one matrix, or texts that are not all of one length.
Windows: TypeAlias = Int[Tensor, "samples seqlen"] | Sequence[Int[Tensor, "_"]]


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
    """The inputs of the block at hand, one tensor [1 tokens hidden] a window, and how each block is called.

    Windows go one at a time, so that no result depends on a batch size. `calls` are by length of window and block.
    """

    hidden: list[Tensor]
    calls: Mapping[int, Sequence[Call]]
    on_window: Callable[[], object]

    @classmethod
    @torch.no_grad()
    def capture(
        cls,
        model: nn.Module,
        decoder: Decoder,
        windows: Windows,
        on_window: Callable[[], object] = lambda: None,
    ) -> Activations:
        """Embed all windows, and record from one whole forward pass a length what the model hands to each block.

        `on_window` is called after every window that a block has been measured with.
        """
        blocks, device = decoder.blocks, decoder.presence.device(model)
        calls: dict[int, list[Call]] = defaultdict(list)
        hidden: list[Tensor] = []

        def record(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
            states, call = _split(arguments, keywords)
            calls[states.shape[-2]].append(call)
            if module is blocks[-1].module:
                raise _Stop

        def embed(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
            hidden.append(_split(arguments, keywords)[0])
            raise _Stop

        def run(window: Tensor) -> None:
            with suppress(_Stop):
                model(input_ids=window[None].to(device), use_cache=False)

        lengths = {len(window): window for window in windows}
        with decoder.presence.running():
            with _hooked(block.module.register_forward_pre_hook(record, with_kwargs=True) for block in blocks):
                for window in lengths.values():
                    run(window)
            with _hooked([blocks[0].module.register_forward_pre_hook(embed, with_kwargs=True)]):
                for window in windows:
                    run(window)
        return cls(hidden=hidden, calls=calls, on_window=on_window)

    @torch.no_grad()
    def measure(
        self,
        block: Block,
        linears: Sequence[Linear],
        collect: Callable[[], Statistic[Result]],
        *,
        advance: bool,
    ) -> dict[str, Result]:
        """Run all windows through `block` and return what `collect` makes of the inputs of `linears`, by name.

        Linears that are fed the very same tensor (q, k, v; gate, up) share one statistic; experts that no token was
        routed to have none. With `advance` the outputs become the hidden states of the next block; without, each pass
        ends at the last input that is wanted.

        Raises:
            PruningError: a Linear is never called, or its inputs are not finite.
        """
        inputs = SharedInputs(linears, collect)

        def see(watched: Sequence[Linear], tensor: Tensor) -> None:
            inputs.see([linear.name for linear in watched], tensor)
            if not advance and inputs.is_last(watched[-1].name):
                raise _Stop

        with one_by_one(block.module), Watch(linears, before=see):
            for index in range(len(self.hidden)):
                self._pass(block, index, keep_output=advance)
                inputs.next_window()
                self.on_window()
        return inputs.results()

    @torch.no_grad()
    def advance(self, block: Block) -> None:
        """Replace every hidden state by the output of `block`."""
        for _ in self.steps(block):
            pass

    def steps(self, block: Block) -> Iterator[tuple[Tensor, Tensor]]:
        """Advance window by window and yield the hidden states before and behind `block`."""
        for index, before in enumerate(self.hidden):
            self._pass(block, index, keep_output=True)
            yield before, self.hidden[index]

    def _pass(self, block: Block, index: int, *, keep_output: bool) -> None:
        with suppress(_Stop):
            states = self.hidden[index]
            output = self.calls[states.shape[-2]][block.index](block.module, states)
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
