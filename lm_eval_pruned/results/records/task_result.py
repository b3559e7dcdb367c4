"""The result of one task under one filter, and its metrics as a results file has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lm_eval_pruned.results.records.metrics import compared_metric, row_metric
from lm_eval_pruned.results.records.pruned import number
from lm_eval_pruned.results.records.run_settings import Settings
from lm_eval_pruned.results.records.samples import Outcomes
from lm_eval_pruned.results.records.stopped import Stopped

# The only metric under --predict_only; its values (0 and 999) measure nothing.
_BYPASS = "bypass"
PREDICTED = (
    "with --predict_only nothing is measured: grade its answers with lm-eval-pruned grade samples_*.jsonl --output FILE"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """Results of one task under one filter: metrics and standard errors by name, and its outcomes if known.

    `metric` is the one that is compared, and `higher_is_better` what the file says of it, None if nothing. `benchmark`
    is the task's name without its thinking budget. `questions` is the number that were asked, None if unknown, and
    `shots` that of few-shot examples, "" where the file does not say. `stopped` is None unless a sweep stopped it. The
    outcomes of a group (`is_group`) are those of all its tasks.
    """

    task: str
    filter: str
    benchmark: str
    budget: int | None
    metric: str
    higher_is_better: bool | None
    settings: Settings
    seeds: Settings
    metrics: Mapping[str, float]
    errors: Mapping[str, float]
    outcomes: Outcomes | None
    questions: int | None = None
    shots: str = ""
    stopped: Stopped | None = None
    is_group: bool = False


class Values(NamedTuple):
    """Metrics and standard errors of one task under one filter, and the metrics whose value is not a number."""

    metrics: dict[str, float]
    errors: dict[str, float]
    unmeasured: dict[str, object]


def chosen_metric(values: Values) -> str:
    """Return the metric that is compared.

    Raises:
        ValueError: it is not a measurement.
    """
    if _BYPASS in values.metrics or _BYPASS in values.unmeasured:
        raise ValueError(PREDICTED)
    metric = compared_metric([*values.metrics, *values.unmeasured])
    if metric is None:
        raise ValueError("it has counts of tokens and the like, and no metric to compare")
    # The perplexity of a model that pruning has ruined may be infinite: its rate is not.
    if (measured := metric if metric in values.metrics else row_metric(values.metrics, metric)) in values.metrics:
        return measured
    raise ValueError(f"its {metric} is {values.unmeasured[metric]!r:.60}, not a number: run it again, or mend its task")


def task_values(entries: Mapping[str, object]) -> dict[str, Values]:
    """Sort entries named "metric,filter" by their filter."""
    values: dict[str, Values] = {}
    for key, given in entries.items():
        name, _, filter_name = key.partition(",")
        value, one = number(given), values.setdefault(filter_name, Values({}, {}, {}))
        metric, mark, kind = name.partition("_stderr")
        if mark:
            # Other kinds of errors than the harness's own are named after it.
            if value is not None and not kind:
                one.errors[metric] = value
        elif value is None:
            one.unmeasured[name] = given
        else:
            one.metrics[name] = value
    return values
