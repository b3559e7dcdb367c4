"""Record what a model passes to each block for every window, without running a block, and verify it by replay.

In a recording pass, each block returns its input. What the model passes besides hidden states (rotary embeddings,
masks, per-layer inputs, a container for shared keys and values) is right as long as it does not depend on what blocks
compute, and as long as blocks keep nothing of one window that another block reads. One real pass decides that for every
architecture alike: each block, called as recorded with what the block before it wrote, must return to the bit what it
returns in the model, twice, and with another window run through it in between, as in calibration.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor, nn

from lm_eval_pruned.process_memory import is_out_of_memory
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
from lm_eval_pruned.pruning.model.decoder import Block, Decoder
from lm_eval_pruned.pruning.model.shapes import SHORT_WINDOW

Forward: TypeAlias = Callable[..., object]
Recorded: TypeAlias = tuple[State, list[Call]]


@torch.no_grad()
def record(decoder: Decoder, windows: Windows) -> Activations | None:
    """Return the inputs of the first block and the calls of all blocks; None if blocks cannot be called one by one.

    They cannot where a block is called more than once, where the model computes between blocks, or where an argument
    of a block depends on what earlier blocks computed, unless it is an output of the block before it.
    """
    longest = max(windows, key=len)
    # Other tokens, and few: what blocks keep of one window does not fit the other.
    short = longest.flip(0)[:SHORT_WINDOW]
    with decoder.residency.forward_pass():
        width = _output_width(decoder, longest)
        if width is None:
            return None
        first, second = (_recording_pass(decoder, window, width, known=[]) for window in (longest, short))
        if first is None or second is None:
            return None
        # Twice through all weights: an allocation that calibrates spares this to the method.
        if not decoder.replayed:
            expected = _digests(decoder, longest)
            if expected is None or not _replays(decoder, [first, second], expected):
                return None
            decoder.replayed.append(True)
        # Only tensors of a window of the same length can be equal.
        by_length = {len(longest): first[1]}
        recorded: list[Recorded] = []
        for window in windows:
            found = _recording_pass(decoder, window, width, known=by_length.get(len(window), []))
            if found is None:
                return None
            by_length.setdefault(len(window), found[1])
            recorded.append(found)
    return Activations([state for state, _ in recorded], [calls for _, calls in recorded], counted_tokens(windows))


def run_model(decoder: Decoder, window: Tensor) -> None:
    """Run a window through the model up to its head, or until a hook raises `StopForward`."""
    model = decoder.model
    find_head: Callable[[], nn.Module | None] = getattr(model, "get_output_embeddings", lambda: None)
    head = find_head()

    def stop(*_: object) -> None:
        raise StopForward

    handle = head.register_forward_pre_hook(stop) if isinstance(head, nn.Module) else None
    try:
        with suppress(StopForward):
            model(input_ids=window[None].to(decoder.device), use_cache=False)
    finally:
        if handle is not None:
            handle.remove()


@contextmanager
def replaced_forward(blocks: Sequence[Block], around: Callable[[Block, Forward], Forward]) -> Iterator[None]:
    """Replace the forward method of every block by `around(block, forward)` for a `with` block.

    A hook could neither skip the computation of a block nor call it again.
    """
    with ExitStack() as stack:
        for block in blocks:
            module = block.module
            before = vars(module).get("forward")
            # Patch (docs/harness-hook.md): hooks run besides a block, not instead of it.
            module.forward = around(block, module.forward)
            stack.callback(_restore, module, before)
        yield


def _restore(module: nn.Module, before: Forward | None) -> None:
    if before is None:
        del module.forward
    else:
        module.forward = before


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


def _digests(decoder: Decoder, window: Tensor) -> list[bytes] | None:
    """Run the model and return digests of the input of each block and of what the last one returns.

    None if the blocks are not called once each, in order.
    """
    called: list[Block] = []
    digests: list[bytes] = []
    end = b""

    def observe(block: Block, forward: Forward) -> Forward:
        def observed(*arguments: object, **keywords: object) -> object:
            nonlocal end
            called.append(block)
            digests.append(digest(split_call(arguments, keywords)[0]))
            with decoder.residency.onload(block.module):
                output = forward(*arguments, **keywords)
            end = digest(State.of(output).hidden)
            return output

        return observed

    with replaced_forward(decoder.blocks, observe):
        run_model(decoder, window)
    return [*digests, end] if called == [*decoder.blocks] else None


def _replays(decoder: Decoder, recorded: Sequence[Recorded], expected: Sequence[bytes]) -> bool:
    """Return whether blocks, called one by one as calibration does, compute what the model computes.

    Args:
        decoder: the model.
        recorded: of the window that was run, and of another one, which shows if blocks pass on values by themselves.
        expected: from `_digests`.
    """
    states = [state for state, _ in recorded]
    for block, (before, after) in zip(decoder.blocks, pairwise(expected), strict=True):
        with decoder.residency.onload(block.module):
            # Twice, as calibration does: once to measure, once to propagate.
            for _ in range(2):
                if digest(states[0].hidden) != before:
                    return False
                outputs: list[State] = []
                # Any other error of a call that is not the model's own says that whole passes are needed.
                with memory_errors_alone():
                    outputs = [
                        calls[block.index](block.module, state)
                        for (_, calls), state in zip(recorded, states, strict=True)
                    ]
                if not outputs or digest(outputs[0].hidden) != after:
                    return False
        states = outputs
    return True


def digest(tensor: Tensor) -> bytes:
    """Return a digest of dtype, shape and numbers; 0.0 and -0.0 are equal."""
    found = hashlib.sha256(repr((tensor.dtype, tensor.shape)).encode())
    # -0.0 + 0 is 0.0: equal numbers have equal bytes.
    found.update((tensor.detach() + 0).contiguous().flatten().view(torch.uint8).cpu().numpy().data)
    return found.digest()


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


@contextmanager
def memory_errors_alone() -> Iterator[None]:
    """Suppress every error of a `with` block but those of a full device, which no other way to calibrate avoids."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
