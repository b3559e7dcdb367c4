"""The KV cache of a batch: its layers grow in place, and its sequences leave, fork and join."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import pad
from transformers import cache_utils
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lm_eval_pruned.reasoning.backends import growing_layers
from lm_eval_pruned.reasoning.backends.growing_layers import GrowingLayer, GrowingWindowLayer, Moves

T = TypeVar("T")

# Subclasses do more: indices, states of linear attention, quantisation.
GROWING: dict[type, type[GrowingLayer]] = {DynamicLayer: GrowingLayer, DynamicSlidingWindowLayer: GrowingWindowLayer}
# Layers that hold nothing, states of a row, or states beside keys and values: by name, as releases differ in what they
# have.
OTHERS_THAT_JOIN = ("DummyLayer", "LinearAttentionLayer", "LinearAttentionAndFullAttentionLayer")
STATES = ("conv_states", "recurrent_states")


def grow_in_place(cache: object) -> None:
    """Replace the layers that transformers copies in every step, and no others, by those that grow in place."""
    layers: list[object] = getattr(cache, "layers", [])
    for index, layer in enumerate(layers):
        kind = GROWING.get(type(layer))
        if kind and isinstance(layer, DynamicLayer) and layer.get_seq_length():
            layers[index] = kind(layer)


def rearrange(cache: object, order: Sequence[int], device: torch.device) -> None:
    """Keep only these sequences of a cache, in this order; an index that is given twice forks."""
    moved = [(source, target) for target, source in enumerate(order) if source != target]
    moves = Moves(*(upload(indices, device) for indices in (order, [s for s, _ in moved], [t for _, t in moved])))
    layers = getattr(cache, "layers", [])
    if not layers:
        _fill_placeholders(cache)
        # What beam search does to a cache; every kind of cache supports it.
        cache.reorder_cache(moves.order)  # type: ignore[attr-defined]
        return
    for layer in layers:
        if isinstance(layer, GrowingLayer):
            layer.rearrange(moves)
        else:
            layer.reorder_cache(moves.order)
    for states in states_beside_layers(cache):
        states[:] = [one.index_select(0, moves.order) if isinstance(one, Tensor) else one for one in states]


def states_beside_layers(cache: object) -> list[list[object]]:
    """Return the lists of states [sequences ...] that a cache has beside its layers, as that of MiniMax does.

    `reorder_cache` of transformers leaves them as they are.
    """
    held = [value for name, value in vars(cache).items() if name != "layers" and isinstance(value, list)]
    return [states for states in held if any(isinstance(one, Tensor) for one in states)]


def _fill_placeholders(cache: object) -> None:
    """Give the empty tensors of a cache without layers a row for every sequence.

    The cache of LFM2 before transformers 5 has them as keys and values of a convolution, and cannot reorder them.
    """
    for states in states_beside_layers(cache):
        rows = max(len(one) for one in states if isinstance(one, Tensor))
        states[:] = [one.new_empty(rows, 0) if isinstance(one, Tensor) and not len(one) else one for one in states]


def can_join(cache: object) -> bool:
    """Return whether other sequences can join: every layer holds keys and values of tokens, states of rows, or none."""
    layers: list[object] = getattr(cache, "layers", [])
    return bool(layers) and all(map(_layer_can_join, layers)) and not states_beside_layers(cache)


def can_pad(cache: object) -> bool:
    """Return whether padding is hidden from every layer: all are those of transformers, which follow a mask.

    A layer of a model's own may count from the first token, padding or not, as the windows do that DeepSeek-V4
    compresses. So do caches without layers in older releases: the convolutions of LFM2 read padding.
    """
    layers: list[object] = getattr(cache, "layers", [])
    known = (cache_utils.__name__, growing_layers.__name__)
    return bool(layers) and all(type(layer).__module__ in known for layer in layers)


def has_tokens(cache: object) -> bool:
    """Return whether a layer holds keys and values of tokens, and not only states."""
    return any(isinstance(layer, DynamicLayer) for layer in getattr(cache, "layers", []))


def _layer_can_join(layer: object) -> bool:
    known = [getattr(cache_utils, name, None) for name in OTHERS_THAT_JOIN]
    # The first releases that have states keep them in another way.
    return isinstance(layer, GrowingLayer) or (
        type(layer) in known and all(isinstance(getattr(layer, name, {}), dict) for name in STATES)
    )


def join(cache: object, other: object, places: Int[Tensor, " joined"], rows: int) -> None:
    """Write the sequences of another cache to these of `rows` rows, aligned on the right with all others."""
    for layer, new in zip(cache.layers, other.layers, strict=True):  # type: ignore[attr-defined]
        if isinstance(layer, GrowingLayer):
            layer.join(new, places, rows)
        elif isinstance(layer, DynamicLayer):
            for name in ("keys", "values"):
                setattr(layer, name, _put(getattr(layer, name), getattr(new, name), places, rows, is_aligned=True))
        for name in STATES:
            states, others = getattr(layer, name, {}), getattr(new, name, {})
            for key, state in states.items():
                states[key] = None if state is None else _put(state, others[key], places, rows)


def _put(old: Tensor, new: Tensor, places: Int[Tensor, " joined"], rows: int, *, is_aligned: bool = False) -> Tensor:
    """Return `rows` rows of which `places` are new; tokens, the last dimension but one, are aligned on the right."""
    width = max(old.shape[-2], new.shape[-2]) if is_aligned else 0
    whole, new = (
        pad(one, (0, 0, width - one.shape[-2], 0)) if is_aligned and one.shape[-2] < width else one
        for one in (old, new)
    )
    more = whole.new_zeros(rows - len(whole), *whole.shape[1:])
    return torch.cat([whole, more]).index_copy_(0, places.to(whole.device), new)


def trim(cache: object, tokens: int) -> None:
    """Drop tokens on the left, which are padding in every sequence."""
    for layer in cache.layers:  # type: ignore[attr-defined]
        if isinstance(layer, GrowingLayer):
            layer.trim(tokens)
        elif isinstance(layer, DynamicLayer):
            for name in ("keys", "values"):
                setattr(layer, name, getattr(layer, name)[..., tokens:, :])


def keep_places(sequences: Sequence[tuple[int, T]]) -> list[tuple[int, T]]:
    """Reorder pairs of a row and what continues there so that few rows move: those that can keep their place.

    Example:
        >>> keep_places([(0, "a"), (2, "c"), (2, "fork"), (5, "f")])
        [(0, 'a'), (2, 'fork'), (2, 'c'), (5, 'f')]
    """
    placed: list[tuple[int, T] | None] = [None] * len(sequences)
    others = []
    for pair in sequences:
        if pair[0] < len(placed) and placed[pair[0]] is None:
            placed[pair[0]] = pair
        else:
            others.append(pair)
    remaining = iter(others)
    return [pair or next(remaining) for pair in placed]


def upload(values: Sequence[int], device: torch.device) -> Int[Tensor, " values"]:
    """Copy integers to a device without waiting for it."""
    return torch.tensor(values, dtype=torch.long).to(device, non_blocking=True)
