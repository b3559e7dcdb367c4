"""Narrow the MLP of every block by as many channels: rows of what writes a channel, columns of what reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from lm_eval_pruned.pruning.model.decoder import Block, Linear
from lm_eval_pruned.pruning.model.shorter_config import replace_fields


class Slices(NamedTuple):
    """The axis of a tensor along which channels lie, and how often: twice in a fused gate and up projection."""

    axis: int
    groups: int

    def of(self, tensor: Tensor, kept: Tensor) -> Tensor:
        """Return the slices of the channels that are kept.

        Example:
            >>> Slices(axis=0, groups=2).of(torch.tensor([0, 1, 2, 10, 11, 12]), torch.tensor([0, 2])).tolist()
            [0, 2, 10, 12]
        """
        shape = tensor.shape
        split = tensor.detach().reshape(*shape[: self.axis], self.groups, -1, *shape[self.axis + 1 :])
        return split.index_select(self.axis + 1, kept.to(tensor.device)).flatten(self.axis, self.axis + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """What changes in a model when channels are removed from the MLP of each block.

    Attributes:
        channels: how many channels an MLP has.
        left: how many it keeps.
        config: the new config.
        slices: the tensors with slices, by name in the model.
        attributes: new values by name of module and name of attribute.
        removed: how many parameters are removed.
    """

    channels: int
    left: int
    config: PretrainedConfig
    slices: Mapping[str, Slices]
    attributes: Mapping[str, Mapping[str, object]]
    removed: int

    def apply(self, model: nn.Module, kept: Mapping[str, Tensor]) -> None:
        """Change the model, in place.

        Args:
            model: the model, in memory or on the meta device.
            kept: for each block, by its name, the channels to keep, in order.
        """
        for name in self.slices:
            prefix, _, own = name.rpartition(".")
            module = model.get_submodule(prefix)
            value = getattr(module, own)
            setattr(module, own, nn.Parameter(self.left_of(name, value, kept), value.requires_grad))
        for name, values in self.attributes.items():
            for attribute, value in values.items():
                setattr(model.get_submodule(name), attribute, value)
        assert isinstance(model.config, PretrainedConfig)
        replace_fields(model.config, self.config.get_text_config())

    def left_of(self, name: str, tensor: Tensor, kept: Mapping[str, Tensor]) -> Tensor:
        """Return what is left of the tensor `name`, which is as in the dense model."""
        if name not in self.slices:
            return tensor
        channels = next(channels for block, channels in kept.items() if name.startswith(f"{block}."))
        return self.slices[name].of(tensor, channels)

    def reader(self, block: Block) -> Linear:
        """Return the Linear of a block whose inputs are the channels: the down projection."""
        return next(one for one in block.linears if (own := self.slices.get(tensor_of(one))) and is_read(one, own))


def tensor_of(linear: Linear) -> str:
    """Return the name of the tensor that holds a Linear."""
    return f"{linear.name}.{linear.parameter}"


def is_read(linear: Linear, slices: Slices) -> bool:
    """Return whether channels are the inputs of a Linear, and not its outputs."""
    return slices.axis == (0 if linear.transposed else 1)


@torch.no_grad()
def stop_reading(linear: Linear, kept: Tensor) -> None:
    """Set the columns of all channels but those that are kept to zero, in place: the model computes as if narrowed."""
    removed = torch.ones(linear.weight.shape[1], dtype=torch.bool, device=linear.weight.device)
    removed[kept] = False
    linear.weight.masked_fill_(removed, 0)
