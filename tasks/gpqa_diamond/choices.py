"""What the task files of this folder name: harnesses before 0.4.13 find functions only in files beside them."""

from lm_eval_pruned.models.documents import shuffle_choices

__all__ = ["shuffle_choices"]
