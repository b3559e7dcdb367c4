"""What changes in a model when decoder blocks are dropped: lists, config, indices, tensors with a slice a block."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from lm_eval_pruned.pruning.model.shorter_config import Kept, replace_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What changes in a model when blocks are dropped, besides the blocks.

    Attributes:
        kept: the blocks that are left.
        lists: names of the lists with one module per block.
        entries: lists inside blocks with an entry for each block that has them (adapters of shared weights), by name
            in the block, and the entries that stay.
        config: the new config, None for a model without one.
        attributes: new values by name of module, once the lists are shortened, and name of attribute.
        sliced: names of the tensors outside the blocks that have a slice for each block, and the axis of the slices.
    """

    kept: Kept
    lists: Sequence[str]
    entries: Mapping[str, Sequence[int]]
    config: PretrainedConfig | None
    attributes: Mapping[str, Mapping[str, object]]
    sliced: Mapping[str, int]

    def apply(self, model: nn.Module) -> None:
        """Change the model, in place."""
        for name in self.lists:
            blocks: nn.Module = model.get_submodule(name)
            assert isinstance(blocks, nn.ModuleList)
            _keep_entries(blocks, self.kept.indices)
            lists = {entry: stays for block in blocks for entry, stays in self._lists_inside(block)}
            # Blocks may have one list in common.
            for entries, stays in lists.items():
                _keep_entries(entries, stays)
        for name, values in self.attributes.items():
            for attribute, value in values.items():
                setattr(model.get_submodule(name), attribute, value)
        for name, axis in self.sliced.items():
            prefix, _, own = name.rpartition(".")
            module = model.get_submodule(prefix)
            value = self.kept.slice(getattr(module, own), axis)
            is_parameter = own in module._parameters
            setattr(module, own, nn.Parameter(value, value.requires_grad) if is_parameter else value)
        if self.config is not None:
            assert isinstance(model.config, PretrainedConfig)
            replace_fields(model.config, self.config.get_text_config())

    def renamed(self, name: str) -> str | None:
        """Return the new name of a tensor or module, None if it is dropped."""
        for prefix in self.lists:
            if (place := _entry(name, prefix)) is not None:
                index, rest = place
                inside = self._renamed_inside(rest)
                return None if inside is None else _renumbered(prefix, self.kept.indices, index, inside)
        return name

    def parameters(self, model: nn.Module) -> set[nn.Parameter]:
        """Return the parameters of the model, with all its blocks, that are not dropped under each of their names."""
        named = model.named_parameters(remove_duplicate=False)
        return {value for name, value in named if self.renamed(name) is not None}

    def remaining(self, model: nn.Module) -> int:
        """Return how many parameters the model has left, of which it still has all."""
        dropped = self.kept.blocks - len(self.kept.indices)
        sliced = [value for name, value in model.named_parameters() if name in self.sliced]
        total = sum(value.numel() for value in self.parameters(model))
        return total - sum(value.numel() // self.kept.blocks * dropped for value in sliced)

    def _renamed_inside(self, name: str) -> str | None:
        for prefix, stays in self.entries.items():
            if (place := _entry(name, prefix)) is not None:
                return _renumbered(prefix, stays, *place)
        return name

    def _lists_inside(self, block: nn.Module) -> Iterator[tuple[nn.ModuleList, Sequence[int]]]:
        for name, module in block.named_modules():
            if name in self.entries:
                assert isinstance(module, nn.ModuleList)
                yield module, self.entries[name]


def _entry(name: str, prefix: str) -> tuple[int, str] | None:
    """Return the index of the entry of the list `prefix` that a name is in, and the name inside it."""
    index, _, rest = name.removeprefix(f"{prefix}.").partition(".")
    return (int(index), rest) if name.startswith(f"{prefix}.") and index.isdecimal() else None


def _renumbered(prefix: str, stays: Sequence[int], index: int, rest: str) -> str | None:
    return ".".join(filter(None, (prefix, str(stays.index(index)), rest))) if index in stays else None


def _keep_entries(modules: nn.ModuleList, stays: Collection[int]) -> None:
    """Delete all entries of a list but some, in place."""
    for index in reversed(range(len(modules))):
        if index not in stays:
            del modules[index]


def fit_slices(tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], kept: Kept) -> dict[str, Tensor]:
    """Return tensors outside the blocks as the model without the dropped blocks has them.

    Args:
        tensors: tensors of the dense model, by name.
        shapes: shapes of the tensors of the model without the dropped blocks.
        kept: the blocks that are left.
    """
    fitted = dict(tensors)
    for name, tensor in tensors.items():
        if (axis := sliced_axis(tensor.shape, shapes.get(name, tensor.shape), kept)) is not None:
            fitted[name] = kept.slice(tensor, axis)
    return fitted


def sliced_axis(before: Sequence[int], after: Sequence[int], kept: Kept) -> int | None:
    """Return the axis along which a tensor has a slice for each block, if only that explains its shapes."""
    if len(before) != len(after):
        return None
    differing = [axis for axis, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    if len(differing) == 1 and before[differing[0]] * len(kept.indices) == after[differing[0]] * kept.blocks:
        return differing[0]
    return None
