"""The decoder seen as a list of blocks, each with its Linear weights, found by structure and never by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.model.experts import fused_weights, split_experts
from lm_eval_pruned.pruning.model.residency import IN_MEMORY, Presence

Part = Literal["attn", "mlp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """One prunable weight matrix of a block, known by its place in a module, since weights may come and go.

    `name` is its full name in the model, of a fused expert the one it has in a checkpoint. It is the `parameter` of
    `module`, or of a fused one the `rows` of its `expert`. `routed` says that only some tokens come by: it belongs to
    one of several experts.
    """

    name: str
    part: Part
    module: nn.Module
    parameter: str = "weight"
    expert: int | None = None
    rows: slice = field(default_factory=lambda: slice(None))
    routed: bool = False

    @property
    def factor(self) -> Tensor:
        """What the forward pass multiplies by: the whole parameter, or all that is fused of one expert."""
        value: Tensor = getattr(self.module, self.parameter)
        return value if self.expert is None else value.detach()[self.expert]

    @property
    def weight(self) -> Tensor:
        """The matrix [out in]: the parameter itself, or a view of it."""
        if self.expert is None:
            return self.factor
        return (self.factor.T if self.module.is_transposed else self.factor)[self.rows]


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
    """The blocks of a causal language model, the Linears that are out of reach, and where the weights are."""

    blocks: tuple[Block, ...]
    excluded: tuple[Excluded, ...]
    presence: Presence = IN_MEMORY


def find_decoder(model: nn.Module) -> Decoder:
    """Find the decoder blocks of `model`: the outermost `ModuleList` whose members hold Linear weights.

    Where a model has several such lists (a vision tower beside the language model), `get_decoder()`, if offered, tells
    which part is the decoder; among equals the list with the most weights wins.

    Raises:
        PruningError: there is no such list, or a block holds fused expert weights whose layout nobody states.

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
    get_decoder = getattr(model, "get_decoder", lambda: None)
    root: nn.Module | None = get_decoder()
    # What transformers 4.56 answers of most language models is None.
    lists = list(_outermost_lists(model if root is None else root))
    if not lists:
        raise PruningError(f"{type(model).__name__} has no list of blocks with Linear weights: nothing can be pruned")
    chosen = max(lists, key=lambda blocks: sum(parameter.numel() for parameter in blocks.parameters()))
    blocks = tuple(
        Block(index=index, name=names[module], module=module, linears=tuple(_linears(module, names[module])))
        for index, module in enumerate(chosen)
    )
    return Decoder(blocks=blocks, excluded=tuple(_excluded(model, blocks)))


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
                yield Linear(part=_part(block, name), routed=True, module=module, **expert._asdict())
        elif isinstance(module, nn.Linear) and not _is_router(block, name, module):
            yield Linear(
                name=full_name,
                part=_part(block, name),
                module=module,
                routed=any(isinstance(parent, nn.ModuleList) for parent in _parents(block, name)),
            )


def _excluded(model: nn.Module, blocks: Sequence[Block]) -> Iterator[Excluded]:
    """Name every other matrix that multiplies hidden states: Linears, and what stands in for one inside a block."""
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


def _part(block: nn.Module, name: str) -> Part:
    """Attention is what keeps a slot in the key/value cache: some module above the Linear carries `layer_idx`."""
    return "attn" if any(hasattr(module, "layer_idx") for module in _parents(block, name)) else "mlp"


def _parents(block: nn.Module, name: str) -> Iterator[nn.Module]:
    """Yield the modules between a block and the module `name` in it."""
    parts = name.split(".")[:-1]
    return (block.get_submodule(".".join(parts[: depth + 1])) for depth in range(len(parts)))


def _is_router(block: nn.Module, name: str, linear: nn.Linear) -> bool:
    """A router has one output for each member of the list of experts beside it."""
    parent = block.get_submodule(name.rpartition(".")[0]) if "." in name else block
    return any(isinstance(child, nn.ModuleList) and len(child) == linear.out_features for child in parent.children())
