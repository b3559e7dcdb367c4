"""Record what a model passes to each block for every window, without running a block, and verify it by replay.

In a recording pass, each block returns its input. What the model passes besides hidden states (rotary embeddings,
masks, per-layer inputs, a container for shared keys and values) is right as long as it does not depend on what blocks
compute. One real pass decides that for every architecture alike: each block, called as recorded with what the block
before it wrote, must return to the bit what it returns in the model, twice. A block that is built as an earlier one and
is passed the recorded values themselves is not called again: with few windows, two more passes of one would show.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
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
from lm_eval_pruned.pruning.model.decoder import Block, Decoder

Forward: TypeAlias = Callable[..., object]
Recorded: TypeAlias = tuple[State, list[Call]]


@torch.no_grad()
def record(decoder: Decoder, windows: Windows) -> Activations | None:
    """Return the inputs of the first block and the calls of all blocks; None if blocks cannot be called one by one.

    They cannot where a block is called more than once, where the model computes between blocks, or where an argument
    of a block depends on what earlier blocks computed, unless it is an output of the block before it.
    """
    longest = max(windows, key=len)
    with decoder.residency.forward_pass():
        width = _output_width(decoder, longest)
        first = None if width is None else _recording_pass(decoder, longest, width, known=[])
        if width is None or first is None or not _replays(decoder, longest, first):
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
    return Activations([state for state, _ in recorded], [calls for _, calls in recorded])


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
    with _memory_errors_alone(), replaced_forward(decoder.blocks, stub):
        run_model(decoder, window)
    return (State(inputs[0]), calls) if len(calls) == len(decoder.blocks) else None


def _replays(decoder: Decoder, window: Tensor, recorded: Recorded) -> bool:
    """Run the model for real and return whether every block, called as recorded, returns what it returns there."""
    state, calls = recorded
    done: list[Block] = []
    wrong: list[Block] = []
    kinds: set[tuple[type, ...]] = set()

    def replay(block: Block, forward: Forward) -> Forward:
        def replayed(*arguments: object, **keywords: object) -> object:
            nonlocal state
            if len(done) == len(calls) or block is not decoder.blocks[len(done)]:
                wrong.append(block)
                raise StopForward
            hidden, call = split_call(arguments, keywords)
            matches = _equal(hidden, state.hidden)
            kind = tuple(type(module) for module in block.module.modules())
            if matches and kind in kinds and _passes_recorded(call, calls[len(done)].filled(state)):
                with decoder.residency.onload(block.module):
                    output = forward(*arguments, **keywords)
                done.append(block)
                state = State.of(output)
                return output
            kinds.add(kind)
            with decoder.residency.onload(block.module):
                again = None
                # Twice, as calibration does: once to measure, once to propagate. As in `_recording_pass`, any error of
                # a call that is not the model's own says that whole passes are needed.
                with _memory_errors_alone():
                    calls[len(done)](forward, state)
                    again = calls[len(done)](forward, state)
                output = forward(*arguments, **keywords)
            if not matches or again is None or not _equal(again.hidden, State.of(output).hidden):
                wrong.append(block)
                raise StopForward
            done.append(block)
            state = again
            return output

        return replayed

    with _deterministic(), replaced_forward(decoder.blocks, replay):
        run_model(decoder, window)
    return not wrong and len(done) == len(decoder.blocks)


def _passes_recorded(call: Call, recorded: Call) -> bool:
    """Return whether all arguments of two calls are equal values, through which no block can pass anything on."""
    return _equal_values(call.arguments, recorded.arguments) and (
        call.keywords.keys() == recorded.keywords.keys()
        and all(_equal_values(value, recorded.keywords[name]) for name, value in call.keywords.items())
    )


def _equal_values(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)
    if type(one) is tuple and type(other) is tuple:
        return len(one) == len(other) and all(map(_equal_values, one, other))
    # Anything else, a cache for instance, may be written to.
    return type(one) is type(other) and isinstance(one, bool | int | float | str | None) and one == other


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


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


@contextmanager
def _memory_errors_alone() -> Iterator[None]:
    """Suppress every error of a `with` block but those of a full device, which no other way to calibrate avoids."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise


@contextmanager
def _deterministic() -> Iterator[None]:
    """Let equal inputs give equal outputs for a `with` block: on a GPU, sums over experts may not."""
    before, only_warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warns)
