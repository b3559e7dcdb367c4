"""Fused mixture-of-experts weights: one tensor [experts ...], addressed as one matrix for each expert."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

from torch import nn
from transformers import PretrainedConfig

from lm_eval_pruned.errors import PruningError


class Expert(NamedTuple):
    """Location of one matrix of one expert, with its name in a checkpoint; the fields are those of `decoder.Linear`."""

    name: str
    parameter: str
    expert: int
    rows: slice


def fused_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of `module` itself that stack the weights of all experts, by name."""
    return {name: value for name, value in module.named_parameters(recurse=False) if value.ndim == 3}


def split_experts(module: nn.Module, name: str) -> Iterator[Expert]:
    """Yield the locations of the matrices inside fused tensors; a fused gate and up projection is two matrices.

    Raises:
        PruningError: the module does not say how its tensors are laid out.

    Example:
        >>> import torch
        >>> experts = nn.Module()
        >>> experts.is_transposed, experts.is_concatenated = False, True
        >>> experts.gate_up_proj = nn.Parameter(torch.zeros(2, 6, 4))
        >>> [(expert.name, expert.rows) for expert in split_experts(experts, "mlp.experts")][:2]
        [('mlp.experts.0.gate_proj', slice(0, 3, None)), ('mlp.experts.0.up_proj', slice(3, 6, None))]
    """
    fused = fused_weights(module)
    if not hasattr(module, "is_transposed"):
        raise PruningError(
            f"{name}.{next(iter(fused))} holds the weights of all experts in one tensor and does not say in which "
            "layout: choose another model, or a release of transformers that keeps one Linear an expert"
        )
    concatenated = bool(getattr(module, "is_concatenated", True))
    for index in range(len(next(iter(fused.values())))):
        for parameter, value in fused.items():
            rows = value.shape[2 if module.is_transposed else 1]
            for projection, own in _projections(parameter, rows, concatenated=concatenated):
                yield Expert(f"{name}.{index}.{projection}", parameter, index, own)


def _projections(parameter: str, rows: int, *, concatenated: bool) -> list[tuple[str, slice]]:
    if parameter != "gate_up_proj":
        return [(parameter, slice(None))]
    if concatenated:
        return [("gate_proj", slice(0, rows // 2)), ("up_proj", slice(rows // 2, rows))]
    return [("gate_proj", slice(0, rows, 2)), ("up_proj", slice(1, rows, 2))]


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
