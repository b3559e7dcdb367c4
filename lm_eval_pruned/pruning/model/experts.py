"""Stacked weights: one parameter that holds a matrix for each expert or group, addressed as separate matrices."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, cast

from torch import Tensor, nn
from transformers import PretrainedConfig

# The third matrix of an expert of DBRX is multiplied as it is stored, [in out]; nothing in the module says so.
_FLAT_TRANSPOSED: Mapping[str, bool] = {"w1": False, "v1": False, "w2": True}
# Classes whose stacks are all stored [in out] or not, and that neither say so nor have shapes that do.
_STACKS_TRANSPOSED: Mapping[str, bool] = {"InklingSharedExperts": False}


class Layout(NamedTuple):
    """How a parameter stacks matrices: how many there are, and whether each is stored [in out] instead of [out in]."""

    members: int
    transposed: bool


class Member(NamedTuple):
    """Location of one matrix in a stack, with its name in a checkpoint; the fields are those of `decoder.Linear`."""

    name: str
    parameter: str
    expert: int
    members: int
    rows: slice
    transposed: bool


def stacks(module: nn.Module) -> dict[str, Layout | None]:
    """Return the parameters of `module` itself that stack matrices, with their layouts; None where it is unknown.

    A layout is taken from what the module states (`is_transposed`), else from shapes that fit only one.

    Example:
        >>> import torch
        >>> experts = nn.Module()
        >>> experts.gate_up_proj = nn.Parameter(torch.zeros(2, 4, 6))
        >>> experts.down_proj = nn.Parameter(torch.zeros(2, 3, 4))
        >>> stacks(experts)["down_proj"]
        Layout(members=2, transposed=True)
    """
    if isinstance(module, nn.modules.conv._ConvNd):
        return {}
    own = dict(module.named_parameters(recurse=False))
    if isinstance(module, nn.Linear):
        # A block-diagonal product: a Linear that multiplies each group of its inputs by rows of its own.
        groups = getattr(module, "n_groups", 1)
        grouped = isinstance(groups, int) and groups > 1 and type(module).forward is not nn.Linear.forward
        return {"weight": Layout(groups, transposed=False)} if grouped else {}
    flat = _flat(module, own)
    if flat:
        return flat
    fused = {name: value for name, value in own.items() if value.ndim == 3 and min(value.shape[1:]) > 1}
    transposed = _is_transposed(module, fused)
    if any(value.shape[0] == 1 for value in fused.values()) and (len(fused) == 1 or transposed is None):
        # A single expert is told from a tensor [1 ...] that is broadcast by the shapes of two projections.
        return {}
    return {
        name: None if transposed is None else Layout(value.shape[0], transposed=transposed)
        for name, value in fused.items()
    }


def count_members(layouts: Mapping[str, Layout | None]) -> int:
    """Return the number of experts that have all of their matrices; zero-compute experts have only the first."""
    return min((layout.members for layout in layouts.values() if layout), default=0)


def split_stack(module: nn.Module, name: str, layouts: Mapping[str, Layout]) -> Iterator[Member]:
    """Yield the locations of the matrices inside stacked parameters; a fused gate and up projection is two matrices.

    Example:
        >>> import torch
        >>> experts = nn.Module()
        >>> experts.is_transposed, experts.is_concatenated = False, True
        >>> experts.gate_up_proj = nn.Parameter(torch.zeros(2, 6, 4))
        >>> members = split_stack(experts, "mlp.experts", stacks(experts))
        >>> [(member.name, member.rows) for member in members][:2]
        [('mlp.experts.0.gate_proj', slice(0, 3, None)), ('mlp.experts.0.up_proj', slice(3, 6, None))]
    """
    concatenated = bool(getattr(module, "is_concatenated", True))
    for index in range(count_members(layouts)):
        for parameter, (members, transposed) in layouts.items():
            value = getattr(module, parameter)
            rows = value.shape[-1] if transposed else value.numel() // (members * value.shape[-1])
            for projection, own in _projections(parameter, rows, concatenated=concatenated):
                yield Member(f"{name}.{index}{projection}", parameter, index, members, own, transposed)


def _projections(parameter: str, rows: int, *, concatenated: bool) -> list[tuple[str, slice]]:
    if parameter != "gate_up_proj":
        return [("" if parameter == "weight" else f".{parameter}", slice(None))]
    if concatenated:
        return [(".gate_proj", slice(0, rows // 2)), (".up_proj", slice(rows // 2, rows))]
    return [(".gate_proj", slice(0, rows, 2)), (".up_proj", slice(1, rows, 2))]


def _flat(module: nn.Module, own: Mapping[str, nn.Parameter]) -> dict[str, Layout | None]:
    """Return the 2-D parameters that stack all experts along the first axis."""
    members = next((value for name, value in vars(module).items() if name.endswith("num_experts")), None)
    wide = {name: value for name, value in own.items() if value.ndim == 2}
    if not isinstance(members, int) or not wide.keys() >= _FLAT_TRANSPOSED.keys():
        return {}
    return {name: Layout(members, transposed=_FLAT_TRANSPOSED[name]) for name in wide if name in _FLAT_TRANSPOSED}


def _is_transposed(module: nn.Module, fused: Mapping[str, nn.Parameter]) -> bool | None:
    """Return whether stacked matrices are stored [in out]; None if neither the module nor the shapes say so."""
    if hasattr(module, "is_transposed"):
        return bool(module.is_transposed)
    if not fused:
        return None
    if type(module).__name__ in _STACKS_TRANSPOSED:
        return _STACKS_TRANSPOSED[type(module).__name__]
    first, last = next(iter(fused.values())).shape[1:], [*fused.values()][-1].shape[1:]
    # The first projection may hold gate and up, which the last one does not take.
    if first == (2 * last[1], last[0]):
        return False
    if first == (last[1], 2 * last[0]):
        return True
    width, height = (
        next((size for name in names if isinstance(size := getattr(module, name, None), int)), None)
        for names in (("input_size", "in_features", "hidden_size", "hidden_dim"), ("output_size", "out_features"))
    )
    if first == (height, width) or (first[1] == width != first[0]):
        return False
    return True if first[0] == width != first[1] else None


def takes_routes(module: nn.Module) -> bool:
    """Return whether a module takes hidden states, the experts that tokens are routed to, and their gates."""
    names = [*inspect.signature(module.forward).parameters][:3]
    return len(names) == 3 and ("index" in names[1] or "indices" in names[1]) and "weights" in names[2]


def routed_arguments(
    module: nn.Module, arguments: tuple[Tensor, ...], keywords: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return hidden states, chosen experts and gates, a row for each token, from a call of what `takes_routes`."""
    hidden, chosen, gates = [*inspect.signature(module.forward).bind(*arguments, **keywords).arguments.values()][:3]
    return hidden, chosen, gates


@contextmanager
def unfused_experts(model: nn.Module) -> Iterator[None]:
    """Run experts one by one for a `with` block, so that the inputs of each can be observed.

    Grouped kernels multiply all experts at once; the `eager` implementation of transformers does not.
    """
    configs = [
        cast("PretrainedConfig", module.config) for module in model.modules() if hasattr(module, "is_transposed")
    ]
    before = [config._experts_implementation for config in configs]
    try:
        for config in configs:
            config._experts_implementation = "eager"
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._experts_implementation = implementation
