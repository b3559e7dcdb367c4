"""Offline grading of answers: extract the answer from a response, normalise it, and compare it with the gold."""

from lm_eval_pruned.grading.answer_kinds import Kind
from lm_eval_pruned.grading.modes import grade, verify
from lm_eval_pruned.grading.verdict import Verdict

__all__ = ["Kind", "Verdict", "grade", "verify"]
