"""Backward passes of windows, block by block from stored block inputs where that is right, else through the model.

A forward pass keeps the inputs of blocks and the arguments that the model calls them with, but no activations inside
blocks. From the last block to the first, each one is then run again and differentiated alone, so that the activations
of one block are in memory at a time. Several windows go backward together, so that a gradient that is summed over them
is finished for a block before that of the next one begins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isqrt
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.process_memory import is_out_of_memory
from lm_eval_pruned.pruning.calibration.activations import Call, State, Windows, split_call
from lm_eval_pruned.pruning.calibration.counted import counted_tokens
from lm_eval_pruned.pruning.calibration.product_hook import Watch
from lm_eval_pruned.pruning.calibration.replay import digest, memory_errors_alone
from lm_eval_pruned.pruning.calibration.running import Forward, replaced_forward
from lm_eval_pruned.pruning.model.decoder import Block, Decoder, Linear
from lm_eval_pruned.pruning.model.shapes import SHORT_WINDOW

logger = logging.getLogger(__name__)

# The label of a token without a loss, in PyTorch and transformers.
IGNORED = -100

# Takes a Linear, its inputs [tokens in] and its output gradients [tokens out].
OnGradient = Callable[[Linear, Tensor, Tensor], None]
# Takes the index of a block, all of whose gradients were passed on.
OnBlock = Callable[[int], object]
# The Linears whose gradients are wanted, by index of their block.
Wanted = Mapping[int, Sequence[Linear]]


@runtime_checkable
class Backward(Protocol):
    """Runs windows forward and backward, and passes on the gradients of the wanted Linears."""

    def __call__(self, windows: Windows, on_gradient: OnGradient, on_block: OnBlock) -> None:
        """Call `on_gradient` for each Linear, windows in order, and `on_block` once for each block.

        Raises:
            PruningError: the model has no gradient of a loss of token ids.
        """


def choose_backward(decoder: Decoder, wanted: Wanted, windows: Windows) -> Backward:
    """Return passes block by block, or through the whole model where those would give other gradients.

    Two short windows that go backward together decide it, bit for bit. Gradients differ where blocks share weights or
    pass on values besides the hidden states, or where the model computes between blocks.
    """
    longest = max(windows, key=len)
    short = [longest[:SHORT_WINDOW], longest.flip(0)[:SHORT_WINDOW]]
    whole, single = partial(_through_model, decoder, wanted), partial(_block_by_block, decoder, wanted)
    expected = _digests(whole, short)
    # Blocks that cannot be called alone raise errors of any kind.
    with memory_errors_alone():
        if _digests(single, short) == expected:
            return single
    logger.warning(
        "%s: gradients of its blocks depend on values that other blocks keep, so that activations of all blocks are "
        "held at once, which lm-eval-pruned plan does not count",
        type(decoder.model).__name__,
    )
    return whole


def kept_inputs(blocks: int, windows: int) -> set[int]:
    """Return the blocks whose inputs a forward pass keeps: those of a single window, of several windows some.

    Of several windows, they are those of the first block of each segment and of all blocks of the last one, as long as
    the root of the number of blocks. The others are computed again when it is the turn of their segment. The last block
    of the model keeps none, as its activations are never dropped.

    Example:
        >>> sorted(kept_inputs(10, windows=2)), sorted(kept_inputs(4, windows=1))
        ([0, 3, 6, 7, 8], [0, 1, 2])
    """
    before_last = blocks - 1
    length = segment_length(blocks, windows)
    starts = range(0, before_last, length)
    return {*starts, *range(starts[-1] if starts else 0, before_last)}


def segment_length(blocks: int, windows: int) -> int:
    """Return for how many adjacent blocks all inputs of all windows are held at once."""
    return max(1, blocks - 1 if windows == 1 else isqrt(blocks - 1))


def _digests(backward: Backward, windows: Windows) -> list[tuple[str, bytes, bytes]]:
    found: list[tuple[str, bytes, bytes]] = []

    def add(linear: Linear, inputs: Tensor, gradients: Tensor) -> None:
        found.append((linear.name, digest(inputs), digest(gradients)))

    backward(windows, add, lambda _: None)
    return sorted(found)


def _through_model(
    decoder: Decoder, wanted: Wanted, windows: Windows, on_gradient: OnGradient, on_block: OnBlock
) -> None:
    linears = [linear for in_block in wanted.values() for linear in in_block]
    for window, counted in zip(windows, counted_tokens(windows), strict=True):
        try:
            with _passed_on(linears, on_gradient):
                loss = _loss(decoder, window, counted)
            loss.backward()  # type: ignore[no-untyped-call]
        except PruningError:
            raise
        except (RuntimeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0]
            raise PruningError(
                f"{type(decoder.model).__name__} has no gradient of a loss of token ids, which alloc=layerif needs "
                f"({reason}): use another allocation"
            ) from error
    for block in decoder.blocks:
        on_block(block.index)


@dataclass(slots=True)
class _Tape:
    """What a forward pass of a window leaves for the backward pass.

    Attributes:
        calls: the calls of the blocks that have not gone backward yet, but for the last of the model.
        inputs: hidden states in front of some of them, by index of the block.
        gradient: of the loss by the output of the last of them.
    """

    calls: list[Call] = field(default_factory=list)
    inputs: dict[int, Tensor] = field(default_factory=dict)
    gradient: Tensor | None = None


def _block_by_block(
    decoder: Decoder, wanted: Wanted, windows: Windows, on_gradient: OnGradient, on_block: OnBlock
) -> None:
    *blocks, last = decoder.blocks
    kept = kept_inputs(len(decoder.blocks), len(windows))
    length = segment_length(len(decoder.blocks), len(windows))
    tapes = [
        _forward(decoder, window, counted, kept, _passed_on(wanted[last.index], on_gradient))
        for window, counted in zip(windows, counted_tokens(windows), strict=True)
    ]
    on_block(last.index)
    for start in reversed(range(0, len(blocks), length)):
        segment = blocks[start : start + length]
        for tape in tapes:
            _fill_in(tape, segment)
        for block in reversed(segment):
            for tape in tapes:
                _go_backward(tape, block, _passed_on(wanted[block.index], on_gradient))
            on_block(block.index)


def _forward(
    decoder: Decoder, window: Tensor, counted: Tensor | None, kept: Collection[int], passed_on: Watch
) -> _Tape:
    """Run a window through the model, and backward through the last block and what follows it."""
    tape, last = _Tape(), decoder.blocks[-1]
    leaves: list[Tensor] = []

    def around(block: Block, forward: Forward) -> Forward:
        def called(*arguments: object, **keywords: object) -> object:
            hidden, call = split_call(arguments, keywords)
            if block is last:
                leaves.append(_leaf(hidden, block))
                with passed_on:
                    return forward(leaves[-1], *call.arguments, **call.keywords)
            tape.calls.append(call)
            if block.index in kept:
                tape.inputs[block.index] = hidden
            with torch.no_grad():
                return forward(*arguments, **keywords)

        return called

    with replaced_forward(decoder.blocks, around):
        loss = _loss(decoder, window, counted)
    loss.backward()  # type: ignore[no-untyped-call]
    tape.gradient = leaves[-1].grad
    return tape


@torch.no_grad()
def _fill_in(tape: _Tape, segment: Sequence[Block]) -> None:
    """Compute the inputs of the blocks of a segment from that of its first."""
    for block in segment[:-1]:
        if block.index + 1 not in tape.inputs:
            before = State(tape.inputs[block.index])
            tape.inputs[block.index + 1] = tape.calls[block.index](block.module, before).hidden


def _go_backward(tape: _Tape, block: Block, passed_on: Watch) -> None:
    """Run a block again, and backward."""
    leaf, call = _leaf(tape.inputs.pop(block.index), block), tape.calls.pop()
    with torch.enable_grad(), passed_on:
        output = call(block.module, State(leaf)).hidden
    # The first block needs no gradient if none of its Linears is wanted.
    if output.requires_grad:
        output.backward(tape.gradient)  # type: ignore[no-untyped-call]
    tape.gradient = leaf.grad


def _leaf(hidden: Tensor, block: Block) -> Tensor:
    """Return hidden states as a leaf; in front of the first block, no gradient is needed."""
    return hidden.detach().requires_grad_(block.index > 0)


def _loss(decoder: Decoder, window: Tensor, counted: Tensor | None) -> Tensor:
    """Return the mean loss of the tokens that count."""
    ids = window[None].to(decoder.device)
    labels = ids if counted is None else ids.where(counted[None].to(ids.device), IGNORED)
    with torch.enable_grad():
        loss: Tensor = decoder.model(input_ids=ids, labels=labels, use_cache=False).loss
    return loss


def _passed_on(linears: Sequence[Linear], on_gradient: OnGradient) -> Watch:
    """Return a mode in which the inputs and output gradients of Linears are passed on once these go backward."""

    def hook(watched: Sequence[Linear], inputs: Tensor, outputs: Tensor) -> None:
        rows_in = inputs.detach().flatten(0, -2)

        def split(gradient: Tensor) -> None:
            rows_out = gradient.flatten(0, -2)
            for linear in watched:
                on_gradient(linear, rows_in, rows_out[:, linear.rows])

        # A product under no_grad (an indexer that only chooses tokens) has no gradient, which counts as zero.
        if outputs.requires_grad:
            outputs.register_hook(split)  # type: ignore[no-untyped-call]

    return Watch(linears, before=_differentiable, after=hook)


def _differentiable(watched: Sequence[Linear], inputs: Tensor) -> Tensor:
    """Take gradients from the first products on, wherever their inputs come from."""
    del watched
    if inputs.requires_grad or not torch.is_grad_enabled():
        return inputs
    return inputs.detach().requires_grad_(True)
