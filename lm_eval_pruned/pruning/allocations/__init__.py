"""Allocations: how the sparsity is spread over the decoder blocks.

An allocation of this package is a file here and an import line below. Another package registers one through the entry
point group `lm_eval_pruned.allocations`.
"""

from __future__ import annotations

from lm_eval_pruned.pruning.allocations.alphapruning import alphapruning
from lm_eval_pruned.pruning.allocations.arithmetic import arithmetic
from lm_eval_pruned.pruning.allocations.dlp import dlp
from lm_eval_pruned.pruning.allocations.kinds import ALLOCATIONS, Allocation
from lm_eval_pruned.pruning.allocations.layerif import layerif
from lm_eval_pruned.pruning.allocations.listed import listed
from lm_eval_pruned.pruning.allocations.owl import owl
from lm_eval_pruned.pruning.allocations.search import search
from lm_eval_pruned.pruning.allocations.uniform import uniform

__all__ = [
    "ALLOCATIONS",
    "Allocation",
    "alphapruning",
    "arithmetic",
    "dlp",
    "layerif",
    "listed",
    "owl",
    "search",
    "uniform",
]
