"""A KV cache layer with room to grow: a step writes one token in place, where transformers copies the whole layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicLayer

from lm_eval_pruned.reasoning.backends.limits import MAX_ROOM, MIN_ROOM, ROOM_SHARE

T = TypeVar("T")


class Moves(NamedTuple):
    """A new order of a batch: the present row of each new one, and which rows move from where to where."""

    order: Int[Tensor, " sequences"]
    sources: Int[Tensor, " moved"]
    targets: Int[Tensor, " moved"]


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A `DynamicLayer` whose keys and values are views of larger tensors [rows heads capacity head_dim].

    A step writes into them. When they are full, one after the other is copied to a larger one. Sequences that leave,
    fork or join move single rows.
    """

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        keys, values = layer.keys, layer.values
        assert keys is not None, "the layer was prefilled"
        assert values is not None
        # Its dtype, its device and that it is initialized, under the names of any release of transformers.
        vars(self).update(vars(layer))
        # A dict: what a layer has as tensors of its own is counted as its size.
        self._storage = {"keys": keys, "values": values}

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Float[Tensor, "sequences heads tokens key_dim"], Float[Tensor, "sequences heads tokens value_dim"]]:
        """Write the new keys and values of every sequence, and return all of them."""
        return self._append("keys", key_states), self._append("values", value_states)

    def rearrange(self, moves: Moves) -> None:
        """Reorder, evict and fork the sequences."""
        order, sources, targets = (indices.to(self.device) for indices in moves)
        for name in ("keys", "values"):
            used = self._used(name)
            if len(order) > len(self._storage[name]):
                self._storage[name] = used.index_select(0, order)
            elif len(sources):
                rows = used.index_select(0, sources)
                self._storage[name][..., : used.shape[-2], :].index_copy_(0, targets, rows)
            setattr(self, name, self._storage[name][: len(order), ..., : used.shape[-2], :])

    def join(self, other: GrowingLayer, places: Int[Tensor, " joined"], rows: int) -> None:
        """Write the sequences of another layer to these of `rows` rows, aligned on the right with all others."""
        places = places.to(self.device)
        for name in ("keys", "values"):
            used, new = self._used(name), other._used(name)
            width = max(used.shape[-2], new.shape[-2])
            if rows > len(self._storage[name]) or width > used.shape[-2]:
                self._reallocate(name, rows, width, width + room_beyond(width))
            whole = self._storage[name]
            # A masked key or value is multiplied by zero, which leaves NaN and infinity as they are: pad with zeros.
            aligned = pad(new, (0, 0, width - new.shape[-2], 0))
            whole[..., :width, :].index_copy_(0, places, aligned)
            setattr(self, name, whole[:rows, ..., :width, :])

    def trim(self, tokens: int) -> None:
        """Drop tokens on the left, which are padding in every sequence; their memory is freed when the layer grows."""
        for name in ("keys", "values"):
            self._storage[name] = self._storage[name][..., tokens:, :]
            setattr(self, name, self._used(name)[..., tokens:, :])

    def _append(self, name: str, new: Tensor) -> Tensor:
        end = self._used(name).shape[-2]
        width = end + new.shape[-2]
        if self._storage[name].shape[-2] < width:
            self._reallocate(name, len(new), end, width + room_beyond(width))
        whole = self._storage[name][: len(new)]
        whole[..., end:width, :] = new
        setattr(self, name, whole[..., :width, :])
        return self._used(name)

    def _used(self, name: str) -> Tensor:
        used: Tensor = getattr(self, name)
        return used

    def _reallocate(self, name: str, rows: int, width: int, capacity: int) -> None:
        """Copy the tokens to a tensor of `rows` rows, so that they end at `width` and have room up to `capacity`."""
        used = self._used(name)
        start = width - used.shape[-2]
        whole = used.new_empty(rows, *used.shape[1:-2], capacity, used.shape[-1])
        whole[..., :start, :] = 0
        whole[: len(used), ..., start:width, :] = used
        self._storage[name] = whole
        # The old storage is freed before that of the values is copied.
        setattr(self, name, whole[: len(used), ..., start:width, :])


def room_beyond(width: int) -> int:
    """Return for how many more tokens a cache of `width` tokens is made.

    Example:
        >>> room_beyond(100), room_beyond(1000), room_beyond(8000)
        (16, 62, 256)
    """
    return min(max(MIN_ROOM, int(ROOM_SHARE * width)), MAX_ROOM)


def grow_in_place(cache: object) -> None:
    """Replace the layers that transformers copies in every step, and no others, by those that grow in place."""
    layers: list[object] = getattr(cache, "layers", [])
    for index, layer in enumerate(layers):
        # Subclasses do more: windows, indices, states of linear attention, quantisation.
        if type(layer) is DynamicLayer and layer.get_seq_length():
            layers[index] = GrowingLayer(layer)


def rearrange(cache: object, order: Sequence[int], device: torch.device) -> None:
    """Keep only these sequences of a cache, in this order; an index that is given twice forks."""
    moved = [(source, target) for target, source in enumerate(order) if source != target]
    moves = Moves(*(upload(indices, device) for indices in (order, [s for s, _ in moved], [t for _, t in moved])))
    layers = getattr(cache, "layers", [])
    if not any(isinstance(layer, GrowingLayer) for layer in layers):
        # What beam search does to a cache; every kind of cache supports it.
        cache.reorder_cache(moves.order)  # type: ignore[attr-defined]
        return
    for layer in layers:
        if isinstance(layer, GrowingLayer):
            layer.rearrange(moves)
        else:
            layer.reorder_cache(moves.order)


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
