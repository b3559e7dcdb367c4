"""What changes in a model when decoder blocks are dropped: lists, config, indices, tensors with a slice a block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        config: the new config, None for a model without one.
        attributes: new values by name of module, once the lists are shortened, and name of attribute.
        sliced: names of the tensors outside the blocks that have a slice for each block, and the axis of the slices.
    """

    kept: Kept
    lists: Sequence[str]
    config: PretrainedConfig | None
    attributes: Mapping[str, Mapping[str, object]]
    sliced: Mapping[str, int]

    def apply(self, model: nn.Module) -> None:
        """Change the model, in place."""
        for name in self.lists:
            blocks: nn.Module = model.get_submodule(name)
            assert isinstance(blocks, nn.ModuleList)
            removed = [index for index in range(self.kept.blocks) if index not in self.kept.indices]
            for index in reversed(removed):
                del blocks[index]
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
            index, _, rest = name.removeprefix(f"{prefix}.").partition(".")
            if name.startswith(f"{prefix}.") and index.isdecimal():
                if int(index) not in self.kept.indices:
                    return None
                return ".".join(filter(None, (prefix, str(self.kept.indices.index(int(index))), rest)))
        return name


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
