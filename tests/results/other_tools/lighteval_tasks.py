"""Two tasks of our own for lighteval, on the questions of the bundled model; README.md says how they were run."""

from __future__ import annotations

import numpy as np
from lighteval.metrics.metrics import Metrics
from lighteval.metrics.metrics_sample import ExactMatches
from lighteval.metrics.utils.metric_utils import SampleLevelMetric
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc, SamplingMethod

DATA = {"hf_repo": "chains", "hf_subset": "default", "hf_avail_splits": ["train"], "evaluation_splits": ["train"]}
ends_right = SampleLevelMetric(
    metric_name="ends_right",
    sample_level_fn=ExactMatches(strip_strings=True, type_exact_match="suffix"),
    category=SamplingMethod.GENERATIVE,
    corpus_level_fn=np.mean,
    higher_is_better=True,
)


def written(row, task_name=None):
    return Doc(task_name=task_name, query=row["problem"], choices=[f"\\boxed{{{row['answer']}}}"], gold_index=0)


def chosen(row, task_name=None):
    return Doc(task_name=task_name, query=row["problem"], choices=[*"0123456789"], gold_index=int(row["answer"]))


TASKS_TABLE = [
    LightevalTaskConfig(
        name="chains",
        prompt_function=written,
        metrics=[ends_right, Metrics.f1_score],
        generation_size=160,
        stop_sequence=[],
        **DATA,
    ),
    LightevalTaskConfig(
        name="digits",
        prompt_function=chosen,
        metrics=[Metrics.loglikelihood_acc],
        generation_size=1,
        stop_sequence=[],
        **DATA,
    ),
]
