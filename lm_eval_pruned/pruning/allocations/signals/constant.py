"""The constant signal, for allocations that read nothing of the model."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.pruning.allocations.signals.kinds import DenseModel, Needs, Signal
from lm_eval_pruned.pruning.model.flops import Work
from lm_eval_pruned.pruning.model.shapes import Architecture, WindowShape


def zeros(dense: DenseModel, config: PruneConfig) -> Float[Tensor, "groups blocks"]:
    """Return the constant signal, 0 for every block."""
    del config
    return torch.zeros(len(dense.groups), len(dense.decoder.blocks), dtype=torch.float64)


def _no_work(architecture: Architecture, windows: WindowShape, config: PruneConfig) -> Work:
    del architecture, windows, config
    return Work()


CONSTANT = Signal(
    name="none",
    needs=Needs.NOTHING,
    measure=zeros,
    work=_no_work,
    description="nothing",
)
