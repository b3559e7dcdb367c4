"""Record what a model passes to each block for every window, without running a block, and verify it by replay.

In a recording pass, each block returns its input. What the model passes besides hidden states (rotary embeddings,
masks, per-layer inputs, a container for shared keys and values) is right as long as it does not depend on what blocks
compute, and as long as blocks keep nothing of one window that another block reads. One real pass decides that for every
architecture alike: each block, called as recorded with what the block before it wrote, must return to the bit what it
returns in the model (`replay`).
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lm_eval_pruned.pruning.calibration.activations import (
    Activations,
    Call,
    Carried,
    State,
    StopForward,
    Windows,
    split_call,
)
from lm_eval_pruned.pruning.calibration.counted import counted_tokens
from lm_eval_pruned.pruning.calibration.replay import Recorded, Replay, longest_window, memory_errors_alone, run_once
from lm_eval_pruned.pruning.calibration.running import Forward, replaced_forward, run_model
from lm_eval_pruned.pruning.model.decoder import Block, Decoder
from lm_eval_pruned.pruning.model.residency import RESIDENT
from lm_eval_pruned.pruning.model.shapes import SHORT_WINDOW


class Recording(NamedTuple):
    """The inputs of the first block for every window, and the replay that checks that blocks may be called alone."""

    activations: Activations
    replay: Replay


@torch.no_grad()
def record(decoder: Decoder, windows: Windows) -> Recording | None:
    """Return the inputs of the first block and the calls of all blocks; None if blocks cannot be called one by one.

    They cannot where a block is called more than once, where the model computes between blocks, or where an argument
    of a block depends on what earlier blocks computed, unless it is an output of the block before it. Of an
    offloaded model this is not known yet: check each block before it is calibrated.
    """
    longest = longest_window(windows)
    # Other tokens, and few: what blocks keep of one window does not fit the other.
    short = longest.flip(0)[:SHORT_WINDOW]
    with decoder.residency.forward_pass():
        width = _output_width(decoder, longest)
        if width is None:
            return None
        first, second = (_recording_pass(decoder, window, width, known=[]) for window in (longest, short))
        if first is None or second is None:
            return None
        checked = decoder.checked
        if not (checked.all_match or _was_run(decoder, longest) or run_once(decoder, longest)):
            return None
        replay = Replay(decoder, [first[0], second[0]], [first[1], second[1]])
        # A resident model is checked at once: weights of earlier blocks are lost once they are pruned.
        is_unchecked = decoder.residency is RESIDENT and not checked.all_match
        if is_unchecked and not all(replay.advance(block) for block in decoder.blocks):
            return None
        # Only tensors of a window of the same length can be equal.
        by_length = {len(longest): first[1]}
        recorded: list[Recorded] = []
        for window in windows:
            found = _recording_pass(decoder, window, width, known=by_length.get(len(window), []))
            if found is None:
                return None
            by_length.setdefault(len(window), found[1])
            recorded.append(found)
    states, calls = [state for state, _ in recorded], [calls for _, calls in recorded]
    return Recording(Activations(states, calls, counted_tokens(windows)), replay)


def _was_run(decoder: Decoder, window: Tensor) -> bool:
    known = decoder.checked.window
    return known is not None and torch.equal(known, window)


def _output_width(decoder: Decoder, window: Tensor) -> int | None:
    """Return the length of the tuple that the first block returns, 0 for a tensor; None for anything else."""
    found: list[int] = []

    def measure(block: Block, forward: Forward) -> Forward:
        def measured(*arguments: object, **keywords: object) -> object:
            output = forward(*arguments, **keywords)
            if isinstance(output, Tensor):
                found.append(0)
            elif isinstance(output, tuple) and output and isinstance(output[0], Tensor):
                found.append(len(output))
            raise StopForward

        return measured

    with replaced_forward(decoder.blocks, measure):
        run_model(decoder, window)
    return found[0] if found else None


def _recording_pass(decoder: Decoder, window: Tensor, width: int, known: Sequence[Call]) -> Recorded | None:
    """Record the calls of all blocks while each returns its input; None if they are not called once, in order.

    Args:
        decoder: the model.
        window: token ids.
        width: from `_output_width`.
        known: calls of another window, whose tensors replace equal ones.
    """
    calls: list[Call] = []
    inputs: list[Tensor] = []
    # Stand for the other outputs of the block before, so that they are recognised as arguments of the next one.
    markers: list[Tensor] = []
    shared: dict[int, tuple[object, object]] = {}

    def stub(block: Block, forward: Forward) -> Forward:
        del forward

        def recorded(*arguments: object, **keywords: object) -> object:
            if block is not decoder.blocks[len(calls)]:
                raise StopForward
            hidden, call = split_call(arguments, keywords)
            inputs.append(hidden)
            equal = known[len(calls)] if known else call
            calls.append(_shared_call(_carried_call(call, markers), equal, shared))
            if len(calls) == len(decoder.blocks):
                raise StopForward
            markers[:] = [torch.empty(0) for _ in range(width - 1)]
            return (hidden, *markers) if width else hidden

        return recorded

    # Whatever a model raises because its blocks computed nothing: whole passes are right for it, and an error that has
    # another cause comes again there.
    with memory_errors_alone(), replaced_forward(decoder.blocks, stub):
        run_model(decoder, window)
    return (State(inputs[0]), calls) if len(calls) == len(decoder.blocks) else None


def _carried_call(call: Call, markers: Sequence[Tensor]) -> Call:
    places = {id(marker): Carried(index + 1) for index, marker in enumerate(markers)}
    return Call(
        tuple(places.get(id(value), value) for value in call.arguments),
        {name: places.get(id(value), value) for name, value in call.keywords.items()},
    )


def _shared_call(call: Call, known: Call, shared: dict[int, tuple[object, object]]) -> Call:
    """Replace tensors by equal ones of a known call; `shared` remembers what was done to an object, by its id."""
    arguments = [
        _shared(value, known.arguments[index] if index < len(known.arguments) else None, shared)
        for index, value in enumerate(call.arguments)
    ]
    keywords = {name: _shared(value, known.keywords.get(name), shared) for name, value in call.keywords.items()}
    return Call(tuple(arguments), keywords)


def _shared(value: object, known: object, shared: dict[int, tuple[object, object]]) -> object:
    if id(value) not in shared:
        # The object is kept along with the result, so that no other one can have its id.
        shared[id(value)] = (value, _replaced(value, known, shared))
    return shared[id(value)][1]


def _replaced(value: object, known: object, shared: dict[int, tuple[object, object]]) -> object:
    if isinstance(value, Tensor):
        same = isinstance(known, Tensor) and value.dtype == known.dtype and value.device == known.device
        return known if same and isinstance(known, Tensor) and torch.equal(value, known) else value
    if type(value) is tuple and type(known) is tuple and len(value) == len(known):
        return tuple(_shared(one, other, shared) for one, other in zip(value, known, strict=True))
    if isinstance(value, MutableMapping) and isinstance(known, MutableMapping) and value is not known:
        # In place: blocks may pass values to each other through it.
        for name in [*value]:
            value[name] = _shared(value[name], known.get(name), shared)
    return value
