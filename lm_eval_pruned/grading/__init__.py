"""Is the answer right: extract it from the response, bring it to normal form, compare it exactly."""

from lm_eval_pruned.grading.answer_kinds import Kind
from lm_eval_pruned.grading.verdict import Verdict, grade, verify

__all__ = ["Kind", "Verdict", "grade", "verify"]
