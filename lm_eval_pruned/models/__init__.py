"""Adapters to the harness, where pruning, reasoning and grading meet."""

from lm_eval_pruned.models.supported import check_harness

check_harness()
