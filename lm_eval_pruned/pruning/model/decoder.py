"""Decoder blocks and their Linear weights, found by the structure of a model and never by module names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lm_eval_pruned.errors import ArgumentError, PruningError
from lm_eval_pruned.pruning.model.block_calls import BlockCalls
from lm_eval_pruned.pruning.model.experts import Layout, count_members, split_stack, stacks
from lm_eval_pruned.pruning.model.residency import RESIDENT, Residency
from lm_eval_pruned.pruning.model.structure import (
    Routing,
    Sublayer,
    is_cross_attention,
    is_product,
    mixes_tokens,
    routing_of,
    rows_of,
    stacks_of_blocks,
    sublayer_of,
)

SUBLAYERS: tuple[Sublayer, ...] = ("attn", "mlp")

ROUTER = "router of a mixture of experts"
UNKNOWN = "weights of all experts in an unknown layout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """One prunable weight matrix of a block.

    It is stored as a location in a module and not as a tensor, since weights are onloaded and offloaded.

    Attributes:
        name: full name in the model; of a member of a stack, the name it has in a checkpoint.
        sublayer: whether it belongs to the attention or to the MLP of its block.
        module: the module that holds the parameter.
        parameter: name of the parameter in `module`.
        expert: index into a parameter that stacks the matrices of all experts or groups, else None.
        members: how many matrices such a parameter stacks along its first axis.
        rows: output rows of the matrix within its member of the stack.
        transposed: whether it is stored [in out].
        routed: whether only some tokens reach it, because it belongs to one of several experts.
    """

    name: str
    sublayer: Sublayer
    module: nn.Module
    parameter: str = "weight"
    expert: int | None = None
    members: int = 1
    rows: slice = field(default_factory=lambda: slice(None))
    transposed: bool = False
    routed: bool = False

    @property
    def operand(self) -> Tensor:
        """The tensor that the forward pass multiplies by: the parameter, or the member of its stack."""
        value: Tensor = getattr(self.module, self.parameter)
        if self.expert is None:
            return value
        return value.detach().view(self.members, -1, value.shape[-1])[self.expert]

    @property
    def weight(self) -> Tensor:
        """The matrix [out in]: the parameter itself, or a view of it."""
        if self.expert is None:
            return self.operand.detach().T if self.transposed else self.operand
        return (self.operand.T if self.transposed else self.operand)[self.rows]

    def as_stored(self, matrix: Tensor) -> Tensor:
        """Return a matrix [out in] as a checkpoint stores it under the name of this Linear."""
        return matrix.T if self.transposed and self.expert is None else matrix


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
        unknown: name of a stack of experts whose layout is not known, if there is one: the model cannot be pruned.
        residency: how the weights get into memory.
        checked: whether blocks may be called one by one, as far as that was checked.
    """

    model: nn.Module
    blocks: tuple[Block, ...]
    excluded: tuple[Excluded, ...]
    unknown: str | None = None
    residency: Residency = RESIDENT
    checked: BlockCalls = field(default_factory=BlockCalls, compare=False, repr=False)

    @property
    def linears(self) -> Iterator[Linear]:
        """The prunable Linears of all blocks, in order."""
        return (linear for block in self.blocks for linear in block.linears)

    @property
    def sizes(self) -> dict[str, int]:
        """The number of weights of every Linear, by name."""
        return {linear.name: linear.weight.numel() for linear in self.linears}

    @property
    def shares_weights(self) -> bool:
        """Whether a parameter is part of several blocks."""
        uses = Counter(parameter for block in self.blocks for parameter in set(block.module.parameters()))
        return any(count > 1 for count in uses.values())

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
    """Find the decoder blocks of `model`: members of the outermost lists that hold matrices.

    A matrix that several blocks share belongs to the first. A model in which nothing is found has no blocks.

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
    modules = [block for stack in stacks_of_blocks(model) for block in stack]
    seen: set[nn.Parameter] = set()
    found = [list(_matrices(module, names[module], seen)) for module in modules]
    excluded = [one for matrices in found for one in matrices if isinstance(one, Excluded)]
    return Decoder(
        model=model,
        blocks=tuple(
            Block(
                index=index,
                name=names[module],
                module=module,
                linears=tuple(one for one in matrices if isinstance(one, Linear)),
            )
            for index, (module, matrices) in enumerate(zip(modules, found, strict=True))
        ),
        excluded=(*excluded, *_outside(model, modules)),
        unknown=next((one.name for one in excluded if one.reason == UNKNOWN), None),
    )


def leave_alone(decoder: Decoder, pattern: str | None) -> Decoder:
    """Exclude the Linears whose names match a regular expression anywhere.

    Raises:
        ArgumentError: none does.
    """
    if pattern is None:
        return decoder
    matching = {linear.name for linear in decoder.linears if re.search(pattern, linear.name)}
    if not matching:
        example = next((linear.name for linear in decoder.linears), "")
        raise ArgumentError(
            f"exclude={pattern} matches none of the prunable matrices: they are named like {example}, and several "
            "expressions are joined by |"
        )
    blocks = tuple(
        replace(block, linears=tuple(one for one in block.linears if one.name not in matching))
        for block in decoder.blocks
    )
    added = tuple(
        Excluded(name=one.name, reason=f"exclude={pattern}") for one in decoder.linears if one.name in matching
    )
    return replace(decoder, blocks=blocks, excluded=(*decoder.excluded, *added))


def check_prunable(decoder: Decoder) -> None:
    """Check that every matrix of the blocks could be told.

    Raises:
        PruningError: there is no list of blocks, or a block holds stacked weights in an unknown layout.
    """
    if not decoder.blocks:
        name = type(decoder.model).__name__
        raise PruningError(f"{name} has no list of blocks with Linear weights: nothing can be pruned")
    if decoder.unknown is not None:
        raise PruningError(
            f"{decoder.unknown} holds the weights of all experts in one tensor and does not say in which layout: "
            "choose another model, or a release of transformers that keeps one Linear an expert"
        )


def _matrices(block: nn.Module, block_name: str, seen: set[nn.Parameter]) -> Iterator[Linear | Excluded]:
    """Yield every matrix of a block but those of `seen`, to which its parameters are added."""
    routing = routing_of(block)
    for name, module in block.named_modules():
        own = {parameter: value for parameter, value in module.named_parameters(recurse=False) if value not in seen}
        seen.update(own.values())
        full_name = f"{block_name}.{name}" if name else block_name
        layouts = {parameter: layout for parameter, layout in stacks(module).items() if parameter in own}
        if is_product(module) and not layouts:
            if "weight" in own:
                yield _product(block, full_name, name, routing)
            continue
        known = {parameter: layout for parameter, layout in layouts.items() if layout is not None}
        path = f"{name}.weight" if name else "weight"
        for member in split_stack(module, full_name, known):
            is_expert = routing.is_expert(path)
            sublayer = sublayer_of(block, path)
            yield Linear(sublayer=sublayer, routed=is_expert, module=module, **member._asdict())
        for parameter, value in own.items():
            if reason := _why_not(block, f"{name}.{parameter}" if name else parameter, value, known, routing):
                yield Excluded(name=f"{full_name}.{parameter}", reason=reason)


def _product(block: nn.Module, full_name: str, name: str, routing: Routing) -> Linear | Excluded:
    module = block.get_submodule(name)
    if name in routing.routers:
        return Excluded(name=full_name, reason=ROUTER)
    if rows_of(module) == 1:
        return Excluded(name=full_name, reason="gate with one output")
    if is_cross_attention(block, name):
        return Excluded(name=full_name, reason="reads an encoder, and text alone has none")
    return Linear(
        name=full_name,
        sublayer=sublayer_of(block, name),
        module=module,
        transposed=isinstance(module, Conv1D),
        routed=routing.is_expert(name),
    )


def _why_not(
    block: nn.Module, path: str, value: nn.Parameter, known: Mapping[str, Layout], routing: Routing
) -> str | None:
    """Return why a parameter that is not the weight of a Linear is not pruned; None for vectors and known stacks."""
    name, _, parameter = path.rpartition(".")
    module = block.get_submodule(name)
    if parameter in known:
        unused = value.shape[0] - count_members(known)
        is_expert = value.ndim == 3 and unused
        return f"the last {unused} experts compute nothing: theirs are never multiplied" if is_expert else None
    if value.ndim < 2 or (min(value.shape) == 1 and not isinstance(module, nn.modules.conv._ConvNd)):
        return None
    if isinstance(module, nn.modules.conv._ConvNd):
        return "convolution"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if path in routing.routers:
        return ROUTER
    if value.ndim == 2:
        return "not the weight of a Linear"
    return "a tensor of three axes, not the weight of a Linear" if mixes_tokens(block, path) else UNKNOWN


def _outside(model: nn.Module, blocks: Sequence[nn.Module]) -> Iterator[Excluded]:
    """Name the matrices outside the blocks that multiply hidden states."""
    inside = {module for block in blocks for module in block.modules()}
    for name, module in model.named_modules():
        if module in inside:
            continue
        if is_product(module):
            yield Excluded(name=name, reason="outside the decoder blocks")
        elif not isinstance(module, nn.Embedding):
            for parameter, value in module.named_parameters(recurse=False):
                if value.ndim == 2 and min(value.shape) > 1:
                    yield Excluded(name=f"{name}.{parameter}", reason="outside the decoder blocks")
