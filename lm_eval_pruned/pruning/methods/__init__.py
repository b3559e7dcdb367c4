"""Pruning methods: a score for every weight, a solution for every matrix, or a rank for every block.

A method of this package is a file here and an import line below. Another package registers one through the entry point
group `lm_eval_pruned.methods`.
"""

from __future__ import annotations

from lm_eval_pruned.pruning.methods.kinds import METHODS, DropMethod, Method, ScoreMethod, SolveMethod
from lm_eval_pruned.pruning.methods.magnitude import magnitude
from lm_eval_pruned.pruning.methods.shortgpt import shortgpt
from lm_eval_pruned.pruning.methods.sparsegpt import sparsegpt
from lm_eval_pruned.pruning.methods.wanda import wanda

__all__ = [
    "METHODS",
    "DropMethod",
    "Method",
    "ScoreMethod",
    "SolveMethod",
    "magnitude",
    "shortgpt",
    "sparsegpt",
    "wanda",
]
