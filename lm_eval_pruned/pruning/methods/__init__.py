"""Pruning methods: a score for every weight. A new one is a file here and an import line below."""

from __future__ import annotations

from lm_eval_pruned.pruning.methods.kinds import METHODS, ScoreMethod
from lm_eval_pruned.pruning.methods.magnitude import magnitude
from lm_eval_pruned.pruning.methods.wanda import wanda

__all__ = ["METHODS", "ScoreMethod", "magnitude", "wanda"]
