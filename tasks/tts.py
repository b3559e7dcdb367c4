"""Names used by the task files in this folder: lm-eval before 0.4.13 finds functions only in files of this folder."""

from lm_eval_pruned.models.task import BudgetedTask

__all__ = ["BudgetedTask"]
