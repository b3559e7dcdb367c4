"""Replay: what an artifact says was done to a model is done to the same weights again, and nothing is calibrated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from lm_eval_pruned.pruning.artifact import Artifact
from lm_eval_pruned.pruning.blocks import Block, Decoder, Linear
from lm_eval_pruned.pruning.dropping import drop_blocks
from lm_eval_pruned.pruning.packing import zero_out, zeroed
from lm_eval_pruned.pruning.report import Outcome
from lm_eval_pruned.pruning.tour import Tour


@torch.no_grad()
def replay(artifact: Artifact, model: nn.Module, decoder: Decoder, leave: Callable[[Block], object]) -> Outcome:
    """Do to `model` in place what an artifact says was done to the same weights before."""
    targets, removed = _targets(artifact.report), _removed(artifact.report)
    tour = Tour(decoder=drop_blocks(model, decoder, removed), leave=leave)
    for block in tour:
        for linear in block.linears:
            kept = artifact.tensors.get(linear.name)
            if kept is not None:
                _apply(linear, kept)
    return Outcome(targets, removed, tour.zeros)


def _apply(linear: Linear, kept: Tensor) -> None:
    """Set a Linear to what an artifact keeps of it: a whole weight, or a packed mask."""
    if kept.dtype != torch.uint8:
        linear.weight.copy_(kept)
    elif linear.expert is None and linear.weight.device.type == "cpu":
        linear.weight.data = zeroed(linear.weight, kept)
    else:
        zero_out(linear.weight, kept)


def _targets(report: Mapping[str, object]) -> dict[str, float]:
    linears = cast("list[dict[str, object]]", report["linears"])
    return {str(item["name"]): float(str(item["target"])) for item in linears}


def _removed(report: Mapping[str, object]) -> frozenset[int]:
    return frozenset(cast("list[int]", report["removed_blocks"]))
