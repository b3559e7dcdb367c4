"""The decoder seen as a list of blocks, each with its Linear weights, found by structure and never by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from lm_eval_pruned.errors import PruningError

Part = Literal["attn", "mlp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """One prunable weight matrix [out in] of a block; `name` is its full name in the model."""

    name: str
    part: Part
    module: nn.Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One decoder block with its prunable Linears in the model's own order."""

    index: int
    name: str
    module: nn.Module
    linears: tuple[Linear, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A weight matrix that no method touches, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """The blocks of a causal language model and the Linears that are out of reach."""

    blocks: tuple[Block, ...]
    excluded: tuple[Excluded, ...]


def find_decoder(model: nn.Module) -> Decoder:
    """Find the decoder blocks of `model`: the outermost `ModuleList` whose members hold Linear weights.

    Where a model has several such lists (a vision tower beside the language model), `get_decoder()`, if offered, tells
    which part is the decoder; among equals the list with the most weights wins.

    Raises:
        PruningError: there is no such list, or a block holds fused expert weights, which are no Linears.

    Example:
        >>> layers = nn.ModuleList([nn.Sequential(nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4))])
        >>> model = nn.ModuleDict({"layers": layers, "head": nn.Linear(4, 9)})
        >>> decoder = find_decoder(model)
        >>> [linear.name for block in decoder.blocks for linear in block.linears]
        ['layers.0.0', 'layers.1.0']
        >>> decoder.excluded
        (Excluded(name='head', reason='outside the decoder blocks'),)
    """
    names = {module: name for name, module in model.named_modules()}
    get_decoder = getattr(model, "get_decoder", None)
    root: nn.Module = get_decoder() if get_decoder else model
    lists = list(_outermost_lists(root))
    if not lists:
        raise PruningError(f"{type(model).__name__} has no list of blocks with Linear weights: nothing can be pruned")
    chosen = max(lists, key=lambda blocks: sum(parameter.numel() for parameter in blocks.parameters()))
    blocks, excluded = [], []
    for index, module in enumerate(chosen):
        linears, routers = _linears(module, names[module])
        blocks.append(Block(index=index, name=names[module], module=module, linears=linears))
        excluded += [Excluded(name=name, reason="router of a mixture of experts") for name in routers]
    inside = {linear.module for block in blocks for linear in block.linears}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module not in inside and name not in {item.name for item in excluded}:
            excluded.append(Excluded(name=name, reason="outside the decoder blocks"))
    return Decoder(blocks=tuple(blocks), excluded=tuple(excluded))


def _outermost_lists(root: nn.Module) -> Iterator[nn.ModuleList]:
    for child in root.children():
        if isinstance(child, nn.ModuleList) and len(child) and all(_has_weights(block) for block in child):
            yield child
        else:
            yield from _outermost_lists(child)


def _has_weights(block: nn.Module) -> bool:
    return any(isinstance(module, nn.Linear) for module in block.modules())


def _linears(block: nn.Module, block_name: str) -> tuple[tuple[Linear, ...], list[str]]:
    """Return the prunable Linears of a block and the names of its routers."""
    linears, routers = [], []
    for name, module in block.named_modules():
        full_name = f"{block_name}.{name}"
        fused = [weight for weight, value in module.named_parameters(recurse=False) if value.ndim == 3]
        if fused:
            raise PruningError(
                f"{full_name}.{fused[0]} holds the weights of all experts in one tensor, which this version does not "
                "prune: choose a dense model, or load the checkpoint with one Linear an expert"
            )
        if not isinstance(module, nn.Linear):
            continue
        if _is_router(block, name, module):
            routers.append(full_name)
        else:
            linears.append(Linear(name=full_name, part=_part(block, name), module=module))
    return tuple(linears), routers


def _part(block: nn.Module, name: str) -> Part:
    """Attention is what keeps a slot in the key/value cache: some module above the Linear carries `layer_idx`."""
    parents = name.split(".")[:-1]
    inside = (block.get_submodule(".".join(parents[: depth + 1])) for depth in range(len(parents)))
    return "attn" if any(hasattr(module, "layer_idx") for module in inside) else "mlp"


def _is_router(block: nn.Module, name: str, linear: nn.Linear) -> bool:
    """A router has one output for each member of the list of experts beside it."""
    parent = block.get_submodule(name.rpartition(".")[0]) if "." in name else block
    return any(isinstance(child, nn.ModuleList) and len(child) == linear.out_features for child in parent.children())
