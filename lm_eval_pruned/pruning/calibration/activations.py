"""Hidden states of the calibration windows, propagated from block to block with the arguments that the model passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.calibration.observing import Observer
from lm_eval_pruned.pruning.calibration.product_hook import Watch
from lm_eval_pruned.pruning.calibration.statistics import SharedInputs, Statistic
from lm_eval_pruned.pruning.model.decoder import Block, Linear
from lm_eval_pruned.pruning.model.experts import unfused_experts

Result = TypeVar("Result")

# Token ids: one matrix, or texts of different lengths.
Windows: TypeAlias = Int[Tensor, "samples seqlen"] | Sequence[Int[Tensor, "_"]]


class StopForward(BaseException):
    """Ends a forward pass early; a BaseException, so that no handler inside a model catches it."""


class Carried(NamedTuple):
    """An argument of a block that is an element of the output of the block before it, by its index there."""

    element: int


class State(NamedTuple):
    """What a block wrote: hidden states, and whatever else it returned."""

    hidden: Tensor
    others: tuple[object, ...] = ()

    @classmethod
    def of(cls, output: object) -> State:
        """Split the output of a block, which is a tensor or a sequence that begins with it.

        Raises:
            PruningError: it is anything else.
        """
        hidden, *others = output if isinstance(output, tuple | list) else (output,)
        return cls(_checked_hidden(hidden), tuple(others))


class Call(NamedTuple):
    """The arguments of a block besides the hidden states: rotary embeddings, masks, whatever the model passes."""

    arguments: tuple[object, ...]
    keywords: Mapping[str, object]

    def __call__(self, forward: Callable[..., object], before: State) -> State:
        """Call a block, or its forward method, with what the block before it wrote."""
        call = self.filled(before)
        return State.of(forward(before.hidden, *call.arguments, **call.keywords))

    def filled(self, before: State) -> Call:
        """Return the call with the outputs of the block before in their places."""

        def fill(value: object) -> object:
            return before.others[value.element - 1] if isinstance(value, Carried) else value

        return Call(
            tuple(fill(value) for value in self.arguments),
            {name: fill(value) for name, value in self.keywords.items()},
        )


def split_call(arguments: tuple[object, ...], keywords: Mapping[str, object]) -> tuple[Tensor, Call]:
    """Separate the hidden states, the first or a named argument, from all other arguments.

    Raises:
        PruningError: the first argument is not a tensor, or no keyword may be the hidden states.
    """
    if arguments:
        return _checked_hidden(arguments[0]), Call(arguments[1:], dict(keywords))
    # A wrong guess is found by replay, or by the shape of what the block returns.
    named = [name for name, value in keywords.items() if isinstance(value, Tensor) and value.ndim > 2]
    own = next((name for name in ("hidden_states", *named) if name in keywords), "")
    return _checked_hidden(keywords.get(own)), Call((), {name: keywords[name] for name in keywords if name != own})


def _checked_hidden(value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise PruningError(
            f"a block takes or returns its hidden states in a value of type {type(value).__name__}, not as a tensor: "
            "its influence is undefined, use another method"
        )
    return value


@dataclass(slots=True)
class Activations:
    """The inputs of the current block for every calibration window, and how each block is called in each window.

    Windows are run one at a time, so that results do not depend on a batch size.

    Attributes:
        states: for each window, what the block before the current one wrote.
        calls: for each window, the call of each block.
        counted: for each window, which of its tokens count; None counts all.
        on_window: called after every window that a block has been calibrated with.
    """

    states: list[State]
    calls: Sequence[Sequence[Call]]
    counted: Sequence[Tensor | None]
    on_window: Callable[[], object] = field(default=lambda: None)

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
            PruningError: a Linear is never called, or its inputs are not finite, or not one row for each token where
                only some tokens count.
        """
        inputs = SharedInputs(linears, collect)
        observer = Observer(linears, inputs)
        if any(one is not None for one in self.counted):
            observer.check_experts(block.module)

        def observe(watched: Sequence[Linear], tensor: Tensor) -> None:
            observer(watched, tensor)
            if not advance and inputs.is_last(watched[-1].name):
                raise StopForward

        with (
            unfused_experts(block.module),
            observer.experts_apart(block.module),
            Watch(linears, before=observe),
        ):
            for index in range(len(self.states)):
                observer.begin_window(self.counted[index])
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
        for index, before in enumerate(self.states):
            self._run(block, index, keep_output=True)
            yield before.hidden, self.states[index].hidden

    def _run(self, block: Block, index: int, *, keep_output: bool) -> None:
        with suppress(StopForward):
            after = self.calls[index][block.index](block.module, self.states[index])
            if keep_output:
                self.states[index] = after
