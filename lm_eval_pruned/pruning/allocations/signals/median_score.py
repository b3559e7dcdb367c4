"""The median Wanda score of a block, as DLP uses it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.pruning.allocations.signals.block_scores import Scores, reduce_block_scores, work_of_block_scores
from lm_eval_pruned.pruning.allocations.signals.kinds import DenseModel, Needs, Signal


@torch.no_grad()
def median_scores(dense: DenseModel, config: PruneConfig) -> Float[Tensor, "groups blocks"]:
    """Return the median of the Wanda scores, the lower of two; 0 for a block without any. Nothing is pruned.

    Reference: Chen et al. 2025, arXiv 2505.23807.
    """
    del config

    def median(scores: Scores) -> float:
        return float(torch.cat([score.flatten() for score in scores()]).median())

    return reduce_block_scores(dense, median, "dlp")


MEDIAN_SCORE = Signal(
    name="median_score",
    needs=Needs.ACTIVATIONS,
    measure=median_scores,
    work=work_of_block_scores,
    description="the median of the scores of each block",
    scores_whole_blocks=True,
)
