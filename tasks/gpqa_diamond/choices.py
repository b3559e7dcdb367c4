"""Names used by the task files in this folder: lm-eval before 0.4.13 finds functions only in files of this folder."""

from lm_eval_pruned.models.documents import shuffle_choices

__all__ = ["shuffle_choices"]
