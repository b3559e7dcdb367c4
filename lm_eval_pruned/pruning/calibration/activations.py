"""Hidden states of the calibration windows, propagated from block to block with the arguments that the model passes."""

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
from lm_eval_pruned.pruning.model.experts import unfused_experts

Result = TypeVar("Result")

# Token ids: one matrix, or texts of different lengths.
Windows: TypeAlias = Int[Tensor, "samples seqlen"] | Sequence[Int[Tensor, "_"]]


class _StopForward(BaseException):
    """Ends a forward pass early; a BaseException, so that no handler inside a model catches it."""


class Call(NamedTuple):
    """The arguments of a block besides the hidden states: rotary embeddings, masks, whatever the model passes."""

    arguments: tuple[object, ...]
    keywords: dict[str, object]

    def __call__(self, block: nn.Module, hidden: Tensor) -> Tensor:
        """Return the output hidden states of `block`, which some releases of transformers wrap in a tuple."""
        output: Tensor | tuple[Tensor, ...] = block(hidden, *self.arguments, **self.keywords)
        return output[0] if isinstance(output, tuple) else output


@dataclass(slots=True)
class Activations:
    """The inputs of the current block for every calibration window, and how each block is called.

    Windows are run one at a time, so that results do not depend on a batch size.

    Attributes:
        hidden: one tensor [1 tokens hidden] per window.
        calls: by length of window, the call of each block.
        on_window: called after every window that a block has been calibrated with.
    """

    hidden: list[Tensor]
    calls: Mapping[int, Sequence[Call]]
    on_window: Callable[[], object]

    @classmethod
    @torch.no_grad()
    def capture(cls, decoder: Decoder, windows: Windows, on_window: Callable[[], object] = lambda: None) -> Activations:
        """Embed all windows, and record from one forward pass per length what the model passes to each block."""
        blocks, model, device = decoder.blocks, decoder.model, decoder.device
        calls: dict[int, list[Call]] = defaultdict(list)
        hidden: list[Tensor] = []

        def record(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
            states, call = _split(arguments, keywords)
            calls[states.shape[-2]].append(call)
            if module is blocks[-1].module:
                raise _StopForward

        def embed(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
            hidden.append(_split(arguments, keywords)[0])
            raise _StopForward

        def run(window: Tensor) -> None:
            with suppress(_StopForward):
                model(input_ids=window[None].to(device), use_cache=False)

        lengths = {len(window): window for window in windows}
        with decoder.residency.forward_pass():
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
        """Run all windows through `block` and return a statistic of the inputs of each Linear, by name.

        Linears that are fed the same tensor (q, k, v; gate, up) share one statistic; experts that no token was routed
        to have none.

        Args:
            block: the current block, onloaded.
            linears: the Linears to observe.
            collect: makes an empty statistic.
            advance: replace the hidden states by the outputs of the block. Without it, each pass ends at the last input
                that is needed.

        Raises:
            PruningError: a Linear is never called, or its inputs are not finite.
        """
        inputs = SharedInputs(linears, collect)

        def observe(watched: Sequence[Linear], tensor: Tensor) -> None:
            inputs.update([linear.name for linear in watched], tensor)
            if not advance and inputs.is_last(watched[-1].name):
                raise _StopForward

        with unfused_experts(block.module), Watch(linears, before=observe):
            for index in range(len(self.hidden)):
                self._run(block, index, keep_output=advance)
                inputs.next_window()
                self.on_window()
        return inputs.results()

    @torch.no_grad()
    def advance(self, block: Block) -> None:
        """Replace every hidden state by the output of `block`."""
        for _ in self.steps(block):
            pass

    def steps(self, block: Block) -> Iterator[tuple[Tensor, Tensor]]:
        """Advance window by window and yield the hidden states before and after `block`."""
        for index, before in enumerate(self.hidden):
            self._run(block, index, keep_output=True)
            yield before, self.hidden[index]

    def _run(self, block: Block, index: int, *, keep_output: bool) -> None:
        with suppress(_StopForward):
            states = self.hidden[index]
            output = self.calls[states.shape[-2]][block.index](block.module, states)
            if keep_output:
                self.hidden[index] = output


def _split(arguments: tuple[object, ...], keywords: dict[str, object]) -> tuple[Tensor, Call]:
    """Separate the hidden states, the first or a named argument, from all other arguments."""
    if arguments:
        hidden, rest, named = arguments[0], arguments[1:], keywords
    else:
        hidden, rest = keywords["hidden_states"], ()
        named = {name: value for name, value in keywords.items() if name != "hidden_states"}
    assert isinstance(hidden, Tensor)
    return hidden, Call(rest, named)


@contextmanager
def _hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove hooks at the end of a `with` block."""
    registered = list(handles)
    try:
        yield
    finally:
        for handle in registered:
            handle.remove()
