"""The outlier ratio of OWL: the percentage of Wanda scores of a block far above their mean."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.pruning.allocations.signals.block_scores import Scores, reduce_block_scores, work_of_block_scores
from lm_eval_pruned.pruning.allocations.signals.kinds import DenseModel, Needs, Signal


@torch.no_grad()
def outlier_ratios(dense: DenseModel, config: PruneConfig) -> Float[Tensor, "groups blocks"]:
    """Return the percentage of Wanda scores above `owl_m` times their mean; nothing is pruned.

    D_l = 100 #{A > M mean(A)} / #A over all matrices in scope of block l together; 0 for a block without any.

    Reference: Yin et al. 2023, arXiv 2310.05175.
    """

    def ratio(scores: Scores) -> float:
        # Scores are computed twice and not stored: in float32, those of a whole block can be larger than the block.
        count = sum(score.numel() for score in scores())
        mean = sum(float(score.double().sum()) for score in scores()) / count
        return 100 * sum(int((score > config.owl_m * mean).sum()) for score in scores()) / count

    return reduce_block_scores(dense, ratio, "owl")


OUTLIER_RATIO = Signal(
    name="outlier_ratio",
    needs=Needs.ACTIVATIONS,
    measure=outlier_ratios,
    work=work_of_block_scores,
    description="the share of outliers among the scores of each block",
    settings=("owl_m",),
)
