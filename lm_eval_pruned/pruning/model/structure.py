"""The structure of a model: its stacks of blocks, and in a block which modules mix tokens and which route them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from functools import cache
from typing import Literal, NamedTuple

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lm_eval_pruned.pruning.model.experts import count_members, stacks

Sublayer = Literal["attn", "mlp"]

# Arguments that only a module takes for which the tokens before a token matter.
_OF_TOKENS = frozenset(
    {
        *("attention_mask", "mask", "attn_mask", "causal_mask", "position_embeddings", "position_ids", "position_bias"),
        *("rotary_pos_emb", "rotary_emb", "alibi", "past_key_values", "past_key_value", "past_key_values_length"),
        *("layer_past", "cache", "cache_params", "cache_position", "use_cache", "mems", "freqs_cis"),
    }
)
# Arguments of a recurrence; the MLP of RWKV takes one as well, beside an attention that says so otherwise.
_OF_RECURRENCES = frozenset({"state", "states"})
# In a decoder without an encoder, the modules that would read the encoder are built and never called.
_CROSS_ATTENTION = ("encoder_attn", "crossattention", "cross_attn", "encoder_attention")


def is_product(module: nn.Module) -> bool:
    """Return whether the forward pass multiplies by the 2-D weight of this module: a Linear, or GPT-2's `Conv1D`."""
    return isinstance(module, nn.Linear | Conv1D)


def rows_of(module: nn.Module) -> int:
    """Return the number of outputs of a Linear or `Conv1D`."""
    weight = module.weight
    assert isinstance(weight, nn.Parameter)
    return weight.shape[1] if isinstance(module, Conv1D) else weight.shape[0]


def stacks_of_blocks(model: nn.Module) -> list[list[nn.Module]]:
    """Return the members of the outermost lists of blocks, in the order of the model.

    A block holds matrices. A list may have other members as well, such as an identity in place of a dropped block.
    Blocks in an `nn.Sequential` or `nn.ModuleDict` are told from the parts of one module by their common class.

    They are looked for below `get_decoder()`, or in the whole model where that is None or holds no such list (for some
    models it is the head), but not below a model within the model that has another kind of config, as those that read
    images or sound have.
    """
    get_decoder = getattr(model, "get_decoder", lambda: None)
    decoder = get_decoder()
    config = getattr(model, "config", None)
    text = config.get_text_config(decoder=True) if isinstance(config, PretrainedConfig) else None
    kinds = (type(config), type(text), type(getattr(decoder, "config", None)))
    found = [] if decoder is None else list(_outermost_lists(decoder, kinds))
    return found or list(_outermost_lists(model, kinds))


def _outermost_lists(root: nn.Module, kinds: Collection[type]) -> Iterator[list[nn.Module]]:
    for child in root.children():
        if _is_stack(child):
            yield [*child.children()]
        elif not isinstance(child, PreTrainedModel) or type(child.config) in kinds:
            yield from _outermost_lists(child, kinds)


def _is_stack(module: nn.Module) -> bool:
    members = [*module.children()]
    blocks = [member for member in members if _is_block(member)]
    if isinstance(module, nn.ModuleList):
        return bool(blocks)
    others = any(is_product(member) or isinstance(member, nn.ModuleList) for member in members)
    if others or not isinstance(module, nn.Sequential | nn.ModuleDict):
        return False
    return len(blocks) > 1 and len({type(block) for block in blocks}) < len(blocks)


def _is_block(member: nn.Module) -> bool:
    return not is_product(member) and (any(is_product(module) or stacks(module) for module in member.modules()))


def sublayer_of(block: nn.Module, name: str) -> Sublayer:
    """Return the sublayer of the matrix `name`: attention, or whatever else mixes tokens, is a module above it.

    A module mixes tokens if its `forward` takes a mask, positions or a cache. A block within the block does so for the
    sake of one of its parts; another part with matrices of its own is an MLP.

    Example:
        >>> class Attention(nn.Module):
        ...     def forward(self, hidden, attention_mask): ...
        >>> block, attention = nn.Module(), Attention()
        >>> block.a, block.b, attention.q = attention, nn.Linear(1, 1), nn.Linear(1, 1)
        >>> sublayer_of(block, "a.q"), sublayer_of(block, "b")
        ('attn', 'mlp')
    """
    above = list(parents(block, name))[1:]
    if not above and not any(_mixes(module) for module in block.modules() if module is not block):
        # A list of attentions without blocks around them.
        own_only = all(is_product(child) for child in block.children() if any(True for _ in child.parameters()))
        return "attn" if own_only and _mixes(block) else "mlp"
    if not any(_mixes(module) for module in block.modules() if module is not block):
        return "attn" if any(not _OF_RECURRENCES.isdisjoint(_arguments(module)) for module in above) else "mlp"
    for depth, module in enumerate(above):
        if _mixes(module):
            below = above[depth + 1 :]
            parts = [part for part in module.modules() if part is not module and _mixes(part)]
            divided = any(_count_products(part) > 1 for part in parts)
            if not divided or any(_mixes(part) for part in below) or not below or _count_products(below[0]) < 2:
                return "attn"
    return "mlp"


def is_cross_attention(block: nn.Module, name: str) -> bool:
    """Return whether the matrix belongs to attention to an encoder, which text alone never calls."""
    if any("cross_attention_states" in _arguments(module) for module in block.modules() if module is not block):
        # Mllama leaves out whole blocks where there is no image.
        return True
    takes_encoder = any("encoder_hidden_states" in _arguments(module) for module in parents(block, name))
    return takes_encoder and any(piece in _CROSS_ATTENTION for piece in name.split("."))


def mixes_tokens(block: nn.Module, name: str) -> bool:
    """Return whether a module between a block and the parameter `name` in it mixes tokens."""
    return any(_mixes(module) for module in [*parents(block, name)][1:])


def parents(block: nn.Module, name: str) -> Iterator[nn.Module]:
    """Yield the block and the modules between it and the module `name` in it."""
    module = block
    yield module
    for piece in name.split(".")[:-1]:
        module = module.get_submodule(piece)
        yield module


def _mixes(module: nn.Module) -> bool:
    return not _OF_TOKENS.isdisjoint(_arguments(module))


def _arguments(module: nn.Module) -> Collection[str]:
    method = getattr(module.forward, "__func__", None)
    return inspect.signature(module.forward).parameters.keys() if method is None else _parameters(method)


@cache
def _parameters(method: Callable[..., object]) -> Collection[str]:
    return inspect.signature(method).parameters.keys()


def _count_products(module: nn.Module) -> int:
    return sum(is_product(part) for part in module.modules())


class Routing(NamedTuple):
    """What routes tokens in a block: the names of its routers, and the prefixes of what they choose from."""

    routers: frozenset[str]
    experts: tuple[str, ...]

    def is_expert(self, name: str) -> bool:
        """Return whether a matrix belongs to an expert."""
        return f"{name}.".startswith(self.experts)


def routing_of(block: nn.Module) -> Routing:
    """Find the routers of a block: the branch beside the experts that ends with one output for each of them.

    Most are a single matrix; there may be more outputs where some experts compute nothing.
    Beside is the smallest module that holds both. Experts are stacked in a parameter, or members of a list.

    Example:
        >>> moe = nn.Module()
        >>> moe.gate, moe.experts = nn.Linear(8, 2), nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        >>> routing_of(moe)
        Routing(routers=frozenset({'gate'}), experts=('experts.',))
    """
    matrices = dict(_matrices(block))
    routers: set[str] = set()
    experts: list[str] = []
    for name, module in block.named_modules():
        is_stack = not is_product(module) and count_members(stacks(module)) > 0 and not _mixes(module)
        if is_stack or (isinstance(module, nn.ModuleList | nn.ModuleDict) and len(module) > 1):
            count = count_members(stacks(module)) if is_stack else sum(1 for _ in module.children())
            router = _router(block, name, (), count, matrices)
            routers.update(router or ())
            if router is not None or is_stack:
                experts.append(f"{name}." if name else "")
        for members in _numbered(module):
            router = _router(block, f"{name}.{members[0]}" if name else members[0], members, len(members), matrices)
            if router is not None:
                routers.update(router)
                experts.extend(f"{name}.{member}." if name else f"{member}." for member in members)
    return Routing(frozenset(routers), tuple(experts))


def _numbered(module: nn.Module) -> list[list[str]]:
    """Return the names of children of one class that differ by a number: experts that are no list."""
    groups: dict[tuple[str, type], list[str]] = {}
    if not isinstance(module, nn.ModuleList | nn.ModuleDict | nn.Sequential):
        for name, child in module.named_children():
            if name[-1:].isdigit() and not is_product(child) and any(is_product(part) for part in child.modules()):
                groups.setdefault((name.rstrip("0123456789"), type(child)), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _router(
    block: nn.Module, experts: str, siblings: Collection[str], count: int, matrices: dict[str, int]
) -> list[str] | None:
    pieces = experts.split(".")
    for depth in range(len(pieces) - 1, -1, -1):
        prefix = "".join(f"{piece}." for piece in pieces[:depth])
        branches: dict[str, list[str]] = {}
        for name in matrices:
            if name.startswith(prefix):
                branches.setdefault(name.removeprefix(prefix).partition(".")[0], []).append(name)
        for sibling in (pieces[depth], *(siblings if depth == len(pieces) - 1 else ())):
            branches.pop(sibling, None)
        holder = block.get_submodule(prefix[:-1]) if prefix else block
        found = []
        for branch, names in branches.items():
            stated = _stated_experts(holder) | _stated_experts(getattr(holder, branch))
            if matrices[names[-1]] in {count, *stated}:
                found.append(names)
        if found:
            # Where another branch has as many outputs by chance, the router has fewest matrices, is a module of its
            # own, or is called so.
            return min(
                found,
                key=lambda names: (
                    len(names),
                    "." not in names[0].removeprefix(prefix),
                    not _is_called_router(names[0].removeprefix(prefix)),
                ),
            )
        if branches:
            return None
    return None


def _stated_experts(module: object) -> set[int]:
    """Return the numbers of experts that a module states, which may count experts that compute nothing."""
    stated = vars(module) if isinstance(module, nn.Module) else {}
    return {
        value
        for name, value in stated.items()
        if ("experts" in name or "classes" in name) and isinstance(value, int) and value > 1
    }


def _is_called_router(name: str) -> bool:
    return any(word in name for word in ("router", "gate", "gating", "classifier"))


def _matrices(block: nn.Module) -> Iterator[tuple[str, int]]:
    """Yield the name and the number of outputs of every matrix that is not stacked."""
    for name, module in block.named_modules():
        if is_product(module):
            yield name, rows_of(module)
        elif not isinstance(module, nn.Embedding) and not stacks(module):
            for parameter, value in module.named_parameters(recurse=False):
                if value.ndim == 2 and min(value.shape) > 1:
                    yield f"{name}.{parameter}" if name else parameter, value.shape[0]
