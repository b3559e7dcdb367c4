"""Signals: what an allocation reads of a dense model, one number a block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lm_eval_pruned.pruning.activations import Activations
from lm_eval_pruned.pruning.blocks import Block, Linear
from lm_eval_pruned.pruning.methods.wanda import wanda
from lm_eval_pruned.pruning.stats import InputStatistics


@torch.no_grad()
def outlier_ratios(
    model: nn.Module,
    blocks: Sequence[Block],
    scoped: Sequence[Sequence[Linear]],
    windows: Int[Tensor, "samples seqlen"],
    *,
    owl_m: float,
) -> Float[Tensor, " blocks"]:
    """Return, for every block, the percentage of its Wanda scores above `owl_m` times their mean, nothing pruned.

    D_l = 100 #{A > M mean(A)} / #A over all matrices in scope of block l together; 0 for a block without any.

    Reference: Yin et al. 2023, arXiv 2310.05175.
    """
    flow = Activations.capture(model, blocks, windows)
    ratios = []
    for block, linears in zip(blocks, scoped, strict=True):
        if linears:
            ratios.append(_ratio(linears, flow.measure(block, linears, advance=True), owl_m))
        else:
            flow.advance(block)
            ratios.append(0.0)
    return torch.tensor(ratios, dtype=torch.float64)


def _ratio(linears: Sequence[Linear], statistics: dict[str, InputStatistics], owl_m: float) -> float:
    """Scores are made twice rather than kept: those of a whole block in float32 can be larger than the block."""
    weights = [(linear.module.weight, statistics[linear.name]) for linear in linears]
    count = sum(weight.numel() for weight, _ in weights)
    mean = sum(float(wanda(weight, seen).double().sum()) for weight, seen in weights) / count
    return 100 * sum(int((wanda(weight, seen) > owl_m * mean).sum()) for weight, seen in weights) / count
