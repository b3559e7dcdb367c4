"""KV cache layers with room to grow: a step writes one token in place, where transformers copies the whole layer."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lm_eval_pruned.reasoning.backends.limits import MAX_ROOM, MIN_ROOM, ROOM_SHARE


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
        # All attributes of the layer, whose names differ among releases of transformers: keys, dtype, device, window.
        vars(self).update(vars(layer))
        keys, values = layer.keys, layer.values
        assert keys is not None, "the layer was prefilled"
        assert values is not None
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

    def join(self, other: DynamicLayer, places: Int[Tensor, " joined"], rows: int) -> None:
        """Write the sequences of another layer to these of `rows` rows, aligned on the right with all others."""
        places = places.to(self.device)
        for name in ("keys", "values"):
            used, new = self._used(name), getattr(other, name)
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


class GrowingWindowLayer(GrowingLayer, DynamicSlidingWindowLayer):  # type: ignore[no-untyped-call]
    """A `DynamicSlidingWindowLayer` that grows in place.

    It keeps what the next token can see: all but one of the window's tokens. What leaves the window is dropped as
    padding is, and its memory is used again once the room is full.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Float[Tensor, "sequences heads tokens key_dim"], Float[Tensor, "sequences heads tokens value_dim"]]:
        """Write the new keys and values of every sequence, and return those before them in the window as well."""
        self.cumulative_length += key_states.shape[-2]
        found = super().update(key_states, value_states)
        self._keep_window()
        return found

    def join(self, other: DynamicLayer, places: Int[Tensor, " joined"], rows: int) -> None:
        """Write the sequences of another layer to these of `rows` rows, aligned on the right with all others."""
        super().join(other, places, rows)
        self.cumulative_length = max(self.cumulative_length, other.get_seq_length())

    def trim(self, tokens: int) -> None:
        """Drop tokens on the left of all that were read, most of which have left the window already."""
        self.cumulative_length -= tokens
        self._keep_window()

    def _keep_window(self) -> None:
        excess = self._used("keys").shape[-2] - min(self.cumulative_length, self.sliding_window - 1)
        if excess > 0:
            super().trim(excess)


def room_beyond(width: int) -> int:
    """Return for how many more tokens a cache of `width` tokens is made.

    Example:
        >>> room_beyond(100), room_beyond(1000), room_beyond(8000)
        (16, 62, 256)
    """
    return min(max(MIN_ROOM, int(ROOM_SHARE * width)), MAX_ROOM)
