"""Pruning methods: a score for every weight, a solution for every matrix, or a choice of blocks.

A method of this package is a file here and an import line below. Another package registers one through the entry point
group `lm_eval_pruned.methods`.
"""

from __future__ import annotations

from lm_eval_pruned.pruning.methods.angular import angular
from lm_eval_pruned.pruning.methods.greedy import greedy
from lm_eval_pruned.pruning.methods.kinds import METHODS, Method, ScoreMethod, SolveMethod
from lm_eval_pruned.pruning.methods.magnitude import magnitude
from lm_eval_pruned.pruning.methods.random import random
from lm_eval_pruned.pruning.methods.random_blocks import random_blocks
from lm_eval_pruned.pruning.methods.reap import reap
from lm_eval_pruned.pruning.methods.reshaping import DropMethod, ExpertMethod, PositionMethod, SearchMethod, WidthMethod
from lm_eval_pruned.pruning.methods.reverse import reverse
from lm_eval_pruned.pruning.methods.ria import ria
from lm_eval_pruned.pruning.methods.shortgpt import shortgpt
from lm_eval_pruned.pruning.methods.sparsegpt import sparsegpt
from lm_eval_pruned.pruning.methods.wanda import wanda
from lm_eval_pruned.pruning.methods.width import width

__all__ = [
    "METHODS",
    "DropMethod",
    "ExpertMethod",
    "Method",
    "PositionMethod",
    "ScoreMethod",
    "SearchMethod",
    "SolveMethod",
    "WidthMethod",
    "angular",
    "greedy",
    "magnitude",
    "random",
    "random_blocks",
    "reap",
    "reverse",
    "ria",
    "shortgpt",
    "sparsegpt",
    "wanda",
    "width",
]
