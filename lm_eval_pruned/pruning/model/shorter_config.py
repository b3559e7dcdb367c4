"""Shorten a config to the blocks that are left: its depth, its lists with an entry per block, its block indices."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from math import inf, nextafter, sqrt
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from transformers import PretrainedConfig

# The fields of a config as they are written to config.json.
Fields: TypeAlias = dict[str, object]

_NAMES_BLOCKS = re.compile(r"layer|block|idx|indic|index|pattern|types")
_NAMES_TOKENS = re.compile(r"token|id2label|label2id")
# A period of blocks of another kind, and the list of exceptions from it, which can say the same.
_PERIODS = {"decoder_sparse_step": "mlp_only_layers"}


class Kept(NamedTuple):
    """The indices of the blocks that are left, in order, and how many blocks there were."""

    indices: Sequence[int]
    blocks: int

    def pick(self, values: Sequence[object]) -> list[object]:
        """Return the entries of the blocks that are left; a shorter list is repeated."""
        return [values[index % len(values)] for index in self.indices]

    def slice(self, tensor: Tensor, axis: int) -> Tensor:
        """Return the slices of the blocks that are left, of a tensor with one for each block along an axis."""
        indices = torch.tensor(self.indices, device=tensor.device)
        slices = tensor.detach().reshape(*tensor.shape[:axis], self.blocks, -1, *tensor.shape[axis + 1 :])
        return slices.index_select(axis, indices).flatten(axis, axis + 1)

    def renumber(self, indices: Sequence[object]) -> list[object]:
        """Return the new indices of those of the given blocks that are left."""
        return [new for new, index in enumerate(self.indices) if index in indices]

    def before(self, end: int) -> int:
        """Return how many blocks are left of the first `end`."""
        return sum(index < end for index in self.indices)


def shorten(config: PretrainedConfig, kept: Kept) -> Fields:
    """Return the fields of a config, shortened where a field's form says how it refers to blocks.

    Example:
        >>> config = PretrainedConfig(num_hidden_layers=3, depths=[4, 5, 6], mlp_only_layers=[2])
        >>> fields = shorten(config, Kept([0, 2], 3))
        >>> fields["num_hidden_layers"], fields["depths"], fields["mlp_only_layers"]
        (2, [4, 6], [1])
    """
    fields = config.to_dict()
    for name, value in config.to_dict().items():
        if not _NAMES_TOKENS.search(name):
            fields[name] = _shortened(name, value, kept)
    for period, exceptions in _PERIODS.items():
        step, dense = fields.get(period), config.to_dict().get(exceptions)
        if isinstance(step, int) and step > 1 and isinstance(dense, list | None):
            others = [index for index in range(kept.blocks) if (index + 1) % step or index in (dense or ())]
            fields |= {period: 1, exceptions: kept.renumber(others)}
    depth = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    stated = fields.get(depth)
    if not isinstance(stated, int):
        return fields
    # A block may be counted as several layers.
    layers = stated // kept.blocks if stated % kept.blocks == 0 else 1
    return {**fields, depth: layers * len(kept.indices)}


def alternatives(fields: Mapping[str, object], kept: Kept, *, constants: bool) -> Iterator[tuple[str, object]]:
    """Yield other values for one field each, for fields whose form does not say whether and how they refer to blocks.

    A number may count blocks, all, the first or the last ones, be the index of one, or be divided by their number or
    its root (only tried with `constants`); a list may be repeated.
    """
    for name, value in fields.items():
        others: list[object] = []
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            if value <= kept.blocks:
                last = kept.before(kept.blocks) - kept.before(kept.blocks - value)
                others = [kept.before(value), last, kept.before(value + 1) - 1]
            elif value % kept.blocks == 0:
                others = [value // kept.blocks * len(kept.indices)]
        elif isinstance(value, float) and constants:
            # A constant over the depth or its root, as exactly as it can be written.
            ratio = len(kept.indices) / kept.blocks
            near = [value * factor for factor in (ratio, sqrt(ratio), 1 / ratio, 1 / sqrt(ratio))]
            others = [exact for one in near for exact in (one, nextafter(one, inf), nextafter(one, -inf))]
        elif isinstance(value, list) and 0 < len(value) < kept.blocks and not _NAMES_TOKENS.search(name):
            others = [kept.pick(value)]
            if all(isinstance(item, int) for item in value):
                others.append(kept.renumber(value))
        yield from ((name, other) for index, other in enumerate(others) if other not in (value, *others[:index]))


def with_fields(config: PretrainedConfig, fields: Fields) -> PretrainedConfig:
    """Return a copy of a config with its text part read from `fields`, as it will be once it was written.

    Raises:
        ValueError, TypeError: no config can have these fields.
    """
    text = config.get_text_config()
    read = type(text).from_dict(deepcopy(fields))
    # Releases of transformers with strict configs check them before they are written.
    getattr(read, "validate", lambda: None)()
    changed = deepcopy(config)
    replace_fields(changed, read)
    return changed


def replace_fields(config: PretrainedConfig, text: PretrainedConfig) -> None:
    """Give the text part of `config` the fields of `text`, in place; how it is run (attention kernels) stays."""
    own = vars(config.get_text_config())
    running = {name: value for name, value in own.items() if name.endswith("_internal") or name == "_name_or_path"}
    stays = {"dtype": own["dtype"]} if "dtype" in own else {}
    own.clear()
    own.update(vars(deepcopy(text)) | running | stays)


def _shortened(name: str, value: object, kept: Kept) -> object:
    blocks = kept.blocks
    match value:
        case [*items] if len(items) == blocks:
            return kept.pick(items)
        case [[[*pattern], int(count)], *rest] if not rest and len(pattern) * count == blocks:
            # Kinds of blocks, and how often they are repeated.
            return [[kept.pick(pattern), 1]]
        case [*items] if items and _NAMES_BLOCKS.search(name) and _are_indices(items, blocks):
            return kept.renumber(items)
        case str() if len(value) == blocks and "pattern" in name:
            return "".join(map(str, kept.pick(value)))
        case dict() if value and all(isinstance(item, dict | list) for item in value.values()):
            numbered = {str(key): item for key, item in value.items()}
            if all(key.isdecimal() and int(key) < blocks for key in numbered):
                kinds = ((new, numbered.get(str(index))) for new, index in enumerate(kept.indices))
                return {str(new): item for new, item in kinds if item is not None}
    return value


def _are_indices(items: Sequence[object], blocks: int) -> bool:
    are_numbers = all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item < blocks for item in items)
    return are_numbers and len(set(items)) == len(items)
