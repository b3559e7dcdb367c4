"""Replay: check that decoder blocks, called one by one as calibration does, compute what they compute in the model.

The model is run once with a window, and each block must return to the bit what it returned in that run: twice, and with
another window run through it in between. The run may share one reading of the weights with their hashing. Blocks of an
offloaded model are replayed one at a time, each just before it is calibrated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.process_memory import is_out_of_memory
from lm_eval_pruned.pruning.calibration.activations import Call, State, StopForward, Windows, split_call
from lm_eval_pruned.pruning.calibration.running import Forward, replaced_forward, run_model
from lm_eval_pruned.pruning.model.decoder import Block, Decoder

# The input of the first block for a window, and the calls of all blocks.
Recorded: TypeAlias = tuple[State, list[Call]]
# Returns a context manager that is entered while a module computes and its weights are in memory.
Beside = Callable[[nn.Module], AbstractContextManager[object]]


class NeedsWholeModelError(PruningError):
    """Blocks cannot be calibrated one by one, so that all weights have to be in memory."""


@dataclass(slots=True)
class Replay:
    """State of the replay: two windows on their way through the blocks.

    Attributes:
        decoder: the model, which was run with the first of them.
        states: what the block before the current one wrote, for each of the two.
        calls: how each block is called with each of the two.
    """

    decoder: Decoder
    states: Sequence[State]
    calls: Sequence[Sequence[Call]]
    _before: Sequence[State] = field(default=())

    @torch.no_grad()
    def advance(self, block: Block) -> bool:
        """Return whether an onloaded block computes what it computed in the model, and go on to the next one."""
        expected = self.decoder.checked.expected
        before, after = expected[block.index : block.index + 2]
        # Twice, as calibration does: once to measure, once to propagate.
        for _ in range(2):
            if digest(self.states[0].hidden) != before:
                return False
            outputs: list[State] = []
            # Any other error of a call that the model does not make itself means that whole passes are needed.
            with memory_errors_alone():
                outputs = self._outputs(block, self.states)
            if not outputs or digest(outputs[0].hidden) != after:
                return False
        self._before, self.states = self.states, outputs
        if block is self.decoder.blocks[-1]:
            self.decoder.checked.all_match = True
        return True

    def check(self, block: Block) -> None:
        """Check an onloaded block, unless all were checked before.

        Raises:
            NeedsWholeModelError: it computes something else.
        """
        if not self.decoder.checked.all_match and not self.advance(block):
            raise NeedsWholeModelError(
                f"{block.name} computes something else when it is called alone: the weights of "
                f"{type(self.decoder.model).__name__} have to be in memory all at once to calibrate it"
            )

    @torch.no_grad()
    def leave(self, block: Block) -> None:
        """Run the other window through a block, whatever was run through it since it was checked.

        A value that a block keeps for a later one is then that of the wrong window, which the next check finds.
        """
        if not self.decoder.checked.all_match and self._before:
            self.calls[1][block.index](block.module, self._before[1])

    def _outputs(self, block: Block, states: Sequence[State]) -> list[State]:
        return [calls[block.index](block.module, state) for calls, state in zip(self.calls, states, strict=True)]


def longest_window(windows: Windows) -> Tensor:
    """Return the window that the model is run with."""
    return max(windows, key=len)


@torch.no_grad()
def run_once(decoder: Decoder, window: Tensor, beside: Beside = lambda module: nullcontext()) -> bool:
    """Run a window through the model, and store digests of the inputs and outputs of its blocks in the decoder.

    Args:
        decoder: the model, in a `forward_pass` of its residency.
        window: token ids.
        beside: entered with each block while it computes.

    Returns:
        False if the blocks are not called once each, in order.
    """
    called: list[Block] = []
    digests: list[bytes] = []
    end = b""

    with closing(_onloaded(decoder)) as onloaded:

        def observe(block: Block, forward: Forward) -> Forward:
            def observed(*arguments: object, **keywords: object) -> object:
                nonlocal end
                called.append(block)
                if called != [*decoder.blocks[: len(called)]]:
                    raise StopForward
                digests.append(digest(split_call(arguments, keywords)[0]))
                next(onloaded)
                with beside(block.module):
                    output = forward(*arguments, **keywords)
                end = digest(State.of(output).hidden)
                return output

            return observed

        with replaced_forward(decoder.blocks, observe):
            run_model(decoder, window)
    if called != [*decoder.blocks]:
        return False
    decoder.checked.window, decoder.checked.expected = window, [*digests, end]
    return True


def _onloaded(decoder: Decoder) -> Generator[nn.Module, None, None]:
    yield from decoder.residency.onload_each([block.module for block in decoder.blocks])


def digest(tensor: Tensor) -> bytes:
    """Return a digest of dtype, shape and numbers; 0.0 and -0.0 are equal."""
    found = hashlib.sha256(repr((tensor.dtype, tensor.shape)).encode())
    # -0.0 + 0 is 0.0: equal numbers have equal bytes.
    found.update((tensor.detach() + 0).contiguous().flatten().view(torch.uint8).cpu().numpy().data)
    return found.digest()


@contextmanager
def memory_errors_alone() -> Iterator[None]:
    """Suppress every error of a `with` block but those of a full device, which no other way to calibrate avoids."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
