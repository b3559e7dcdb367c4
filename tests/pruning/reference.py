"""Slow, obvious versions of the methods, written from the papers' formulas and sharing nothing with the package."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def linears(block: nn.Module) -> dict[str, nn.Linear]:
    return {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear)}


def magnitude_matrix(weight: Tensor, sparsity: float) -> Tensor:
    """Zero the floor(numel * sparsity) smallest of a matrix, the first of equal ones first."""
    flat = weight.abs().flatten().tolist()
    order = sorted(range(len(flat)), key=lambda index: (flat[index], index))
    pruned = weight.clone().flatten()
    pruned[order[: math.floor(len(flat) * sparsity)]] = 0
    return pruned.reshape(weight.shape)


def rows_by_score(weight: Tensor, score: Tensor, sparsity: float) -> Tensor:
    """Zero the floor(in * sparsity) lowest scores of every row, by stable sorting as the published code does."""
    pruned = weight.clone()
    columns = score.sort(dim=-1, stable=True).indices[:, : math.floor(weight.shape[1] * sparsity)]
    return pruned.scatter(1, columns, 0.0)


@torch.no_grad()
def wanda_in_place(model: nn.Module, windows: Tensor, sparsity: float, *, propagate: str) -> None:
    """Prune block after block; each norm comes from a full forward pass of the model as it is by then.

    With `pruned` the earlier blocks are already pruned; with `dense` all norms are taken before anything is pruned.
    """
    blocks = list(model.model.layers)
    if propagate == "dense":
        norms = [input_norms(model, block, windows) for block in blocks]
    for index, block in enumerate(blocks):
        block_norms = norms[index] if propagate == "dense" else input_norms(model, block, windows)
        for name, linear in linears(block).items():
            score = linear.weight.abs() * block_norms[name]
            linear.weight.copy_(rows_by_score(linear.weight, score, sparsity))


@torch.no_grad()
def input_norms(model: nn.Module, block: nn.Module, windows: Tensor) -> dict[str, Tensor]:
    squares: dict[str, Tensor] = {}
    handles = []
    for name, linear in linears(block).items():

        def add(module: nn.Module, inputs: tuple[Tensor], name: str = name) -> None:
            squares[name] = squares.get(name, 0.0) + inputs[0].square().sum(dim=(0, 1))

        handles.append(linear.register_forward_pre_hook(add))
    for window in windows:
        model(window[None])
    for handle in handles:
        handle.remove()
    return {name: total.sqrt() for name, total in squares.items()}


@torch.no_grad()
def owl_sparsities(model: nn.Module, windows: Tensor, target: float, *, owl_m: float, owl_lambda: float) -> list[float]:
    """The formulas of arXiv 2310.05175 for blocks of equal size, without any clamping."""
    ratios = []
    for block in model.model.layers:
        norms = input_norms(model, block, windows)
        scores = torch.cat([(linear.weight.abs() * norms[name]).flatten() for name, linear in linears(block).items()])
        ratios.append(100 * float((scores > owl_m * scores.mean()).double().mean()))
    spread = max(ratios) - min(ratios)
    raised = [2 * owl_lambda * (ratio - min(ratios)) / spread for ratio in ratios]
    keeps = [value - sum(raised) / len(raised) + (1 - target) for value in raised]
    return [1 - keep for keep in keeps]
