"""Wanda scores of all Linears of a block, measured while dense activations are propagated from block to block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.progress import progress_bar
from lm_eval_pruned.pruning.allocations.signals.kinds import DenseModel
from lm_eval_pruned.pruning.calibration.calibrator import calibrate
from lm_eval_pruned.pruning.calibration.observed import Observed
from lm_eval_pruned.pruning.calibration.statistics import InputNorm, InputStatistics
from lm_eval_pruned.pruning.methods.wanda import wanda
from lm_eval_pruned.pruning.model.decoder import Linear
from lm_eval_pruned.pruning.model.flops import Work, dense_calibration, total
from lm_eval_pruned.pruning.model.shapes import Architecture, WindowShape, count_weights

# Yields the scores of the Linears of a block, one matrix after another; may be called several times.
Scores = Callable[[], Iterator[Tensor]]


def reduce_block_scores(
    dense: DenseModel, reduce: Callable[[Scores], float], name: str
) -> Float[Tensor, "groups blocks"]:
    """Reduce the Wanda scores of every allocation group and block to a number; `name` labels the progress bar."""
    windows, decoder = dense.required_windows(), dense.decoder
    with progress_bar(len(windows) * len(decoder.blocks), desc=name, unit="window") as progress:
        groups_of = [[group.blocks[block.index] for group in dense.groups] for block in decoder.blocks]
        linears = {index: [linear for group in groups for linear in group] for index, groups in enumerate(groups_of)}
        observed = Observed(linears=linears, collect=InputNorm, dense=True)
        calibrator = calibrate(decoder, windows, observed, progress.update)
        rows = []
        for block, groups in zip(decoder.onload_blocks(), groups_of, strict=True):
            statistics = calibrator.measure(block)
            calibrator.advance(block)
            rows.append([reduce(_scores(group, statistics)) if group else 0.0 for group in groups])
    return torch.tensor(rows, dtype=torch.float64).T


def _scores(linears: Sequence[Linear], statistics: Mapping[str, InputStatistics]) -> Scores:
    """Return the scores of the Linears; experts that no token was routed to have none."""
    return lambda: (wanda(linear.weight, statistics[linear.name]) for linear in linears if linear.name in statistics)


def work_of_block_scores(architecture: Architecture, windows: WindowShape, config: PruneConfig) -> Work:
    """Count a calibration with dense activations, and the scores it ranks."""
    del config
    ranked = Work(sorted=count_weights(architecture.scoped))
    return total([dense_calibration(architecture.blocks, windows), ranked])
