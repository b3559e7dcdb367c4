"""Decoder blocks and their Linear weights, found by the structure of a model and never by module names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.model.experts import fused_weights, split_experts
from lm_eval_pruned.pruning.model.residency import RESIDENT, Residency

Sublayer = Literal["attn", "mlp"]
SUBLAYERS: tuple[Sublayer, ...] = ("attn", "mlp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """One prunable weight matrix of a block.

    It is stored as a location in a module and not as a tensor, since weights are onloaded and offloaded.

    Attributes:
        name: full name in the model; of a fused expert, the name it has in a checkpoint.
        sublayer: whether it belongs to the attention or to the MLP of its block.
        module: the module that holds the parameter.
        parameter: name of the parameter in `module`.
        expert: index into the first axis of a parameter that fuses all experts, else None.
        rows: output rows of the matrix within a fused parameter.
        routed: whether only some tokens reach it, because it belongs to one of several experts.
    """

    name: str
    sublayer: Sublayer
    module: nn.Module
    parameter: str = "weight"
    expert: int | None = None
    rows: slice = field(default_factory=lambda: slice(None))
    routed: bool = False

    @property
    def operand(self) -> Tensor:
        """The tensor that the forward pass multiplies by: the parameter, or all that is fused for this expert."""
        value: Tensor = getattr(self.module, self.parameter)
        return value if self.expert is None else value.detach()[self.expert]

    @property
    def weight(self) -> Tensor:
        """The matrix [out in]: the parameter itself, or a view of it."""
        if self.expert is None:
            return self.operand
        return (self.operand.T if self.module.is_transposed else self.operand)[self.rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One decoder block with its prunable Linears in the order of the model."""

    index: int
    name: str
    module: nn.Module
    linears: tuple[Linear, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A weight matrix that is not pruned, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """A causal language model seen as its decoder blocks.

    Attributes:
        model: the whole model, with embeddings and head.
        blocks: the decoder blocks, first to last.
        excluded: matrices that are never pruned.
        residency: how the weights get into memory.
    """

    model: nn.Module
    blocks: tuple[Block, ...]
    excluded: tuple[Excluded, ...]
    residency: Residency = RESIDENT

    @property
    def linears(self) -> Iterator[Linear]:
        """The prunable Linears of all blocks, in order."""
        return (linear for block in self.blocks for linear in block.linears)

    @property
    def device(self) -> torch.device:
        """The device of onloaded weights."""
        return self.residency.device(self.model)

    def onload_blocks(self) -> Iterator[Block]:
        """Yield the blocks in order, each with its weights in memory until the next one is asked for."""
        modules = [block.module for block in self.blocks]
        # The iterator over modules comes first in the zip, so that it is exhausted and offloads the last block.
        for _, block in zip(self.residency.onload_each(modules), self.blocks, strict=True):
            yield block


def find_decoder(model: nn.Module) -> Decoder:
    """Find the decoder blocks of `model`: the outermost `ModuleList` whose members hold Linear weights.

    If there are several such lists (a vision tower next to the language model), `get_decoder()` tells which part of the
    model is the decoder, where the model has it; among the rest the list with the most weights is taken.

    Raises:
        PruningError: there is no such list, or a block holds fused expert weights in an unknown layout.

    Example:
        >>> layers = nn.ModuleList([nn.Sequential(nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4))])
        >>> model = nn.ModuleDict({"layers": layers, "head": nn.Linear(4, 9)})
        >>> decoder = find_decoder(model)
        >>> [linear.name for linear in decoder.linears]
        ['layers.0.0', 'layers.1.0']
        >>> decoder.excluded
        (Excluded(name='head', reason='outside the decoder blocks'),)
    """
    names = {module: name for name, module in model.named_modules()}
    get_decoder = getattr(model, "get_decoder", lambda: None)
    root: nn.Module | None = get_decoder()
    # transformers 4.56 returns None for most language models.
    lists = list(_outermost_lists(model if root is None else root))
    if not lists:
        raise PruningError(f"{type(model).__name__} has no list of blocks with Linear weights: nothing can be pruned")
    chosen = max(lists, key=lambda blocks: sum(parameter.numel() for parameter in blocks.parameters()))
    blocks = tuple(
        Block(index=index, name=names[module], module=module, linears=tuple(_linears(module, names[module])))
        for index, module in enumerate(chosen)
    )
    return Decoder(model=model, blocks=blocks, excluded=tuple(_excluded(model, blocks)))


def _outermost_lists(root: nn.Module) -> Iterator[nn.ModuleList]:
    for child in root.children():
        if isinstance(child, nn.ModuleList) and len(child) and all(_has_weights(block) for block in child):
            yield child
        else:
            yield from _outermost_lists(child)


def _has_weights(block: nn.Module) -> bool:
    return any(isinstance(module, nn.Linear) for module in block.modules())


def _linears(block: nn.Module, block_name: str) -> Iterator[Linear]:
    for name, module in block.named_modules():
        full_name = f"{block_name}.{name}"
        if fused_weights(module):
            for expert in split_experts(module, full_name):
                yield Linear(sublayer=_sublayer(block, name), routed=True, module=module, **expert._asdict())
        elif isinstance(module, nn.Linear) and not _is_router(block, name, module):
            yield Linear(
                name=full_name,
                sublayer=_sublayer(block, name),
                module=module,
                routed=any(isinstance(parent, nn.ModuleList) for parent in _parents(block, name)),
            )


def _excluded(model: nn.Module, blocks: Sequence[Block]) -> Iterator[Excluded]:
    """Name every other matrix that multiplies hidden states: other Linears, and 2-D parameters inside a block."""
    prunable = {linear.name for block in blocks for linear in block.linears}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{block.name}.") for block in blocks)
        if isinstance(module, nn.Linear) and name not in prunable:
            reason = "router of a mixture of experts" if inside else "outside the decoder blocks"
            yield Excluded(name=name, reason=reason)
        elif inside and not isinstance(module, nn.Linear):
            matrices = [weight for weight, value in module.named_parameters(recurse=False) if value.ndim == 2]
            for weight in matrices:
                yield Excluded(name=f"{name}.{weight}", reason="not the weight of a Linear")


def _sublayer(block: nn.Module, name: str) -> Sublayer:
    """Return the sublayer of a Linear: attention has a KV-cache slot, so a module above it has a `layer_idx`."""
    return "attn" if any(hasattr(module, "layer_idx") for module in _parents(block, name)) else "mlp"


def _parents(block: nn.Module, name: str) -> Iterator[nn.Module]:
    """Yield the modules between a block and the module `name` in it."""
    pieces = name.split(".")[:-1]
    return (block.get_submodule(".".join(pieces[: depth + 1])) for depth in range(len(pieces)))


def _is_router(block: nn.Module, name: str, linear: nn.Linear) -> bool:
    """Tell whether a Linear is a router: it has one output for each expert in a list next to it."""
    parent = block.get_submodule(name.rpartition(".")[0]) if "." in name else block
    return any(isinstance(child, nn.ModuleList) and len(child) == linear.out_features for child in parent.children())
