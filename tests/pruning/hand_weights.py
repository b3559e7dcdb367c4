"""A model of two small blocks, whose operations and bytes can be counted by hand."""

from __future__ import annotations

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.pruning.model.shapes import Architecture, BlockShape, Matrix, WindowShape
from lm_eval_pruned.pruning.recipe import resolve

# Attention of 2 x 3 [out 6] and an MLP of 3 x 5.
BLOCK = BlockShape((Matrix(2, 3, "a"), Matrix(3, 5, "b")), attention=0)
TWO = Architecture(blocks=(BLOCK, BLOCK), hidden=3, vocabulary=7, weights=100, itemsize=2)
WINDOWS = WindowShape(samples=4, seqlen=10)


def recipe(**settings):
    return resolve(PruneConfig(**{"method": "wanda", "sparsity": 0.5, **settings}))
