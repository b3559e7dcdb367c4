"""The results of a record: one object for each task, filter and budget of a run, with its interval."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import isfinite

from lm_eval_pruned.paths import is_hub_id
from lm_eval_pruned.results.eee.fields import known
from lm_eval_pruned.results.leaderboard.scales import is_share_metric
from lm_eval_pruned.results.measurement import Key, Measurement, measure
from lm_eval_pruned.results.records.record import Record
from lm_eval_pruned.results.records.run_settings import section
from lm_eval_pruned.results.statistics.intervals import LEVEL

# Names that everybody uses; a metric with another name is the harness's own.
_GLOBAL = {"acc": "accuracy", "accuracy": "accuracy", "exact_match": "exact-match", "f1": "f1", "pass@1": "pass-at-1"}
# The namespace of generated questions, which are on no hub.
_GENERATED = "lm_eval_pruned/"
_SAMPLING = ("temperature", "top_p", "top_k")
_BUDGET = "thinking_token_budget"
_PROMPTING = ("system_instruction", "chat_template_sha", "fewshot_as_multiturn")


def result_id(task: str, filter_name: str, metric: str) -> str:
    """Return the id of a result inside its record, which its samples name."""
    return f"{task}/{filter_name}/{metric}"


def evaluation_name(task: str, filter_name: str) -> str:
    """Return the name of an evaluation: the task, and its filter where it has one."""
    return task if filter_name in ("", "none") else f"{task}/{filter_name}"


def results(record: Record, content: Mapping[str, object]) -> Iterator[dict[str, object]]:
    """Yield the results of a run, in the order of its file, but for those that a sweep stopped early.

    Args:
        record: the run.
        content: its results file, in the newest layout.
    """
    for key, measurement in measure([record]).items():
        if isfinite(measurement.accuracy) and measurement.stopped is None:
            yield _result(key, measurement, content)


def _result(key: Key, measurement: Measurement, content: Mapping[str, object]) -> dict[str, object]:
    given = section(section(content, "configs"), key.task)
    costs = {name: str(value) for name, value in measurement.metrics.items() if name != key.metric}
    return {
        "evaluation_result_id": result_id(key.task, key.filter, key.metric),
        "evaluation_name": evaluation_name(key.task, key.filter),
        "source_data": source_data(given, key.task, content),
        "metric_config": _metric(measurement),
        "score_details": known(score=measurement.accuracy, uncertainty=_uncertainty(measurement), details=costs),
        "generation_config": _generation(given, measurement, content),
    }


def source_data(given: Mapping[str, object], task: str, content: Mapping[str, object]) -> dict[str, object]:
    """Return where the questions of a task are from; `given` is its configuration."""
    path, name, asked = str(given.get("dataset_path") or ""), given.get("dataset_name"), _counts(content, task)
    split = given.get("test_split") or given.get("validation_split")
    # Names without an owner are those of loaders of local files, or of the first data sets, which have moved.
    if is_hub_id(path) and "/" in path and not path.startswith(_GENERATED):
        return known(
            dataset_name=path.rpartition("/")[2],
            source_type="hf_dataset",
            hf_repo=path,
            hf_split=split and str(split),
            samples_number=asked or None,
            additional_details=known(config=name and str(name)),
        )
    return {
        "dataset_name": path.rpartition("/")[2] or task,
        "source_type": "other",
        "additional_details": known(config=name and str(name), task=task),
    }


def _counts(content: Mapping[str, object], task: str) -> int | None:
    counts = section(section(content, "n-samples"), task)
    return next((count for name in ("original", "effective") if isinstance(count := counts.get(name), int)), None)


def _metric(measurement: Measurement) -> dict[str, object]:
    metric, share = measurement.metric, is_share_metric(measurement.metric, measurement.accuracy)
    bounds = {"metric_unit": "proportion", "score_type": "continuous", "min_score": 0.0, "max_score": 1.0}
    details = known(
        direction="unknown" if measurement.higher_is_better is None else "", bounds_status="" if share else "unknown"
    )
    return known(
        metric_id=_GLOBAL.get(metric, f"lm_eval.{metric}"),
        metric_name=metric,
        metric_kind=_GLOBAL.get(metric),
        lower_is_better=measurement.higher_is_better is False,
        **(bounds if share else {}),
        additional_details=details,
    )


def _uncertainty(measurement: Measurement) -> dict[str, object]:
    interval, outcomes = measurement.interval, measurement.outcomes
    questions = measurement.questions if outcomes is None else len(outcomes.questions)
    by = "of the mean over questions, from their outcomes" if outcomes else "from the standard error reported"
    ends = interval and {"lower": interval.low, "upper": interval.high, "confidence_level": LEVEL, "method": by}
    return known(standard_error=known(value=measurement.error), confidence_interval=ends, num_samples=questions or None)


def _generation(
    given: Mapping[str, object], measurement: Measurement, content: Mapping[str, object]
) -> dict[str, object]:
    decoding, config = section(given, "generation_kwargs"), section(content, "config")
    thinking, tokens = config.get("thinking"), decoding.get("max_gen_toks")
    arguments: dict[str, object] = {name: decoding[name] for name in _SAMPLING if _is_number(decoding.get(name))}
    if isinstance(tokens, int) and tokens > 0:
        arguments["max_tokens"] = tokens
    if thinking:
        arguments["reasoning"] = thinking != "none"
    others = {
        **{name: value for name, value in decoding.items() if name not in (*_SAMPLING, "max_gen_toks")},
        _BUDGET: measurement.budget if measurement.budget is not None else decoding.get(_BUDGET),
        "thinking": thinking,
        "num_fewshot": measurement.shots,
        "limit": config.get("limit"),
        **{name: content.get(name) for name in _PROMPTING},
    }
    return {
        "generation_args": arguments,
        "additional_details": {name: _text(value) for name, value in known(**others).items()},
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
