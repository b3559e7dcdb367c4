"""Narrow every block by as many units: channels of its MLP, or experts of its mixture. A unit has slices of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from lm_eval_pruned.pruning.model.decoder import Block, Decoder, Linear
from lm_eval_pruned.pruning.model.shorter_config import replace_fields

Unit = Literal["channel", "expert"]


class Slices(NamedTuple):
    """The axis of a tensor along which units lie, how often, and how many elements each has there.

    Channels lie twice in a fused gate and up projection.
    """

    axis: int
    groups: int = 1
    width: int = 1

    def of(self, tensor: Tensor, kept: Tensor) -> Tensor:
        """Return the slices of the units that are kept.

        Example:
            >>> Slices(axis=0, groups=2).of(torch.tensor([0, 1, 2, 10, 11, 12]), torch.tensor([0, 2])).tolist()
            [0, 2, 10, 12]
        """
        shape = tensor.shape
        split = tensor.detach().reshape(*shape[: self.axis], self.groups, -1, self.width, *shape[self.axis + 1 :])
        return split.index_select(self.axis + 1, kept.to(tensor.device)).flatten(self.axis, self.axis + 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """What changes in a model when units are removed from each block.

    Attributes:
        unit: what is removed.
        units: how many a block has.
        left: how many it keeps.
        config: the new config.
        slices: the tensors with slices, by name in the model.
        attributes: new values by name of module and name of attribute.
        removed: how many parameters are removed.
    """

    unit: Unit
    units: int
    left: int
    config: PretrainedConfig
    slices: Mapping[str, Slices]
    attributes: Mapping[str, Mapping[str, object]]
    removed: int

    def apply(self, model: nn.Module, kept: Mapping[str, Tensor]) -> None:
        """Change the model, in place.

        Args:
            model: the model, in memory or on the meta device.
            kept: for each block, by its name, the units to keep, in order.
        """
        for name in self.slices:
            prefix, _, own = name.rpartition(".")
            module = model.get_submodule(prefix)
            value = getattr(module, own)
            left = self.left_of(name, value, kept)
            is_parameter = isinstance(value, nn.Parameter)
            setattr(module, own, nn.Parameter(left, value.requires_grad) if is_parameter else left)
        for name, values in self.attributes.items():
            for attribute, value in values.items():
                setattr(model.get_submodule(name), attribute, value)
        assert isinstance(model.config, PretrainedConfig)
        replace_fields(model.config, self.config.get_text_config())

    def left_of(self, name: str, tensor: Tensor, kept: Mapping[str, Tensor]) -> Tensor:
        """Return what is left of the tensor `name`, which is as in the dense model."""
        if name not in self.slices:
            return tensor
        return self.slices[name].of(tensor, next(own for block, own in kept.items() if name.startswith(f"{block}.")))

    def narrowed(
        self, block: Block, contents: Mapping[str, Tensor], kept: Mapping[str, Tensor]
    ) -> Iterator[tuple[str, str, Tensor]]:
        """Yield the old and the new name, and what is left, of the tensors of a dense block in a checkpoint.

        Experts may be stacked there, or numbered.
        """
        numbered = {f"{one.name}.weight": one for one in block.linears if one.routed and self.unit == "expert"}
        for name, tensor in contents.items():
            if name not in numbered:
                yield name, name, self.left_of(name, tensor, kept)
            elif not _is_removed(block, numbered[name], kept):
                old = numbered[name].expert
                prefix, _, rest = name.rpartition(f".{old}.")
                yield name, f"{prefix}.{kept[block.name].tolist().index(old)}.{rest}", tensor

    def weight_left(self, block: Block, linear: Linear, kept: Mapping[str, Tensor]) -> Tensor:
        """Return what is left of the weight of a Linear that is still dense; nothing of that of a removed expert."""
        if self.unit == "channel":
            return self.left_of(tensor_of(linear), linear.operand, kept)
        return linear.weight[:0] if _is_removed(block, linear, kept) else linear.weight

    def targets(self, decoder: Decoder, kept: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the fraction that is removed of each Linear that has units, or is part of one, by name."""
        if self.unit == "channel":
            share = 1 - self.left / self.units
            return {one.name: share for one in decoder.linears if tensor_of(one) in self.slices}
        return {
            one.name: float(_is_removed(block, one, kept))
            for block in decoder.blocks
            for one in block.linears
            if one.routed
        }

    def first(self, decoder: Decoder) -> dict[str, Tensor]:
        """Return a choice of as many units as stay, the first of each block that has some."""
        names = [block.name for block in decoder.blocks]
        return {
            name: torch.arange(self.left) for name in names if any(one.startswith(f"{name}.") for one in self.slices)
        }

    def reader(self, block: Block) -> Linear:
        """Return the Linear of a block whose inputs are the channels: the down projection."""
        return next(one for one in block.linears if (own := self.slices.get(tensor_of(one))) and is_read(one, own))


def mixture_of(block: Block) -> nn.Module:
    """Return the module that holds the stacked experts of a block."""
    return next(linear.module for linear in block.linears if linear.routed)


def _is_removed(block: Block, linear: Linear, kept: Mapping[str, Tensor]) -> bool:
    return linear.routed and linear.expert not in kept[block.name].tolist()


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
