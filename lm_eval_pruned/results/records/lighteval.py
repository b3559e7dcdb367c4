"""Results files of lighteval: tasks with their metrics, how they were asked, and the settings of the model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.files import MALFORMED
from lm_eval_pruned.results.records.answered import answered_outcomes
from lm_eval_pruned.results.records.checkpoint import Found, find_report
from lm_eval_pruned.results.records.configuration import HARDWARE, other_configuration, report_seeds
from lm_eval_pruned.results.records.layout import file_date
from lm_eval_pruned.results.records.lighteval_details import lighteval_answers, task_name
from lm_eval_pruned.results.records.metrics import is_same
from lm_eval_pruned.results.records.pruned import read_report
from lm_eval_pruned.results.records.record import Record
from lm_eval_pruned.results.records.run_settings import as_settings, as_text, is_seed, section
from lm_eval_pruned.results.records.task_result import TaskResult

# Means over tasks, which have no questions of their own.
_AVERAGES = re.compile(r"all|.*:_average(\|.*)?")
_WHERE = HARDWARE | {"model_name", "generation_parameters", "cache_dir", "model_parallel", "continuous_batching"}
# How a task is asked, apart from its few-shot examples.
_TASK_SETTINGS = ("generation_size", "stop_sequence", "num_samples")


def is_lighteval(content: bytes) -> bool:
    """Whether a JSON file with this content is one of lighteval; in other text the second quote would be escaped.

    Example:
        >>> is_lighteval(b'{"results": {}, "config_general": {}}'), is_lighteval(b'{"results": {}}')
        (True, False)
    """
    return b'"config_general"' in content


def read_lighteval(path: Path) -> Record:
    """Read a results file of lighteval, and the details of its tasks where they were saved.

    Raises:
        DataError: it cannot be read, or no task in it has a result.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        general = section(content, "config_general")
        # Up to 0.10 the settings of the model stand among those of the run.
        model = section(general, "model_config")
        decoding = section(model or general, "generation_parameters")
        name = str(general.get("model_name") or model.get("model_name") or f"{path.parent.name}/{path.name}")
        sha = general.get("model_sha")
        pruned = Found({}) if _is_service(model) else find_report(name, date=_local_date(path), commit=sha)
        problems = [pruned.problem] if pruned.problem else []
        results = [
            result
            for task in section(content, "results")
            if not _AVERAGES.fullmatch(task) and (result := _result(path, content, task, problems)) is not None
        ]
        if not results:
            raise DataError(problems[0] if problems else f"{path} holds no results: no task was run to its end")
        settings = {
            **{key: value for key, value in model.items() if key not in _WHERE and value is not False},
            **decoding,
            "backend": "lighteval",
            "dtype": model.get("dtype") or general.get("model_dtype"),
            "limit": general.get("max_samples"),
        }
        return Record(
            path=path,
            date=file_date(path),
            configuration=other_configuration(
                name, pruned.report, as_settings(settings), model_sha=sha if isinstance(sha, str) else None
            ),
            seeds=as_text(
                {**report_seeds(pruned.report), **{key: value for key, value in decoding.items() if is_seed(key)}}
            ),
            **read_report(pruned.report)._asdict(),
            results=tuple(results),
            problems=tuple(problems),
        )
    except DataError as problem:
        raise (problem if str(path) in str(problem) else DataError(f"{path} cannot be read: {problem}")) from None
    except MALFORMED as problem:
        raise DataError(f"{path} is not a results file of lighteval: {problem!s:.200}") from None
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror}") from None


def _is_service(model: Mapping[str, object]) -> bool:
    """Whether the model is one of a service, whose names are no folders."""
    return any(model.get(name) for name in ("base_url", "provider", "endpoint_name"))


def _local_date(path: Path) -> float:
    """Return the time of a run in seconds since 1970: lighteval names files by the clock of its machine."""
    return datetime.fromtimestamp(file_date(path), UTC).replace(tzinfo=None).timestamp()


def _result(path: Path, content: Mapping[str, object], name: str, problems: list[str]) -> TaskResult | None:
    """Return the result of a task, or append what is wrong with it to `problems`."""
    values = {
        key: float(value)
        for key, value in section(section(content, "results"), name).items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
    errors = {key.removesuffix("_stderr"): value for key, value in values.items() if key.endswith("_stderr")}
    metrics = {key: value for key, value in values.items() if not key.endswith("_stderr")}
    if not metrics:
        problems.append(f"{path}: {name} has no metric that is a number")
        return None
    task, config = task_name(name), _config(content, name)
    directions = _directions(config)
    # The task names its metrics in an order, and the most important one first.
    metric = next((key for key in directions if key in metrics), next(iter(metrics)))
    try:
        outcomes = answered_outcomes(lighteval_answers(path, *task, metric), path)
    except DataError as problem:
        problems.append(str(problem))
        outcomes = None
    # Of another aggregation than the mean, the rows hold something else.
    if outcomes is not None and not is_same(metrics[metric], outcomes.mean):
        outcomes = None
    asked = config.get("effective_num_docs")
    return TaskResult(
        task=task.name,
        filter="none",
        benchmark=task.name,
        budget=None,
        metric=metric,
        higher_is_better=directions.get(metric),
        settings=as_settings({**{key: config.get(key) for key in _TASK_SETTINGS}, "num_fewshot": task.shots}),
        seeds=(),
        metrics=metrics,
        errors=errors,
        outcomes=outcomes,
        questions=len(outcomes.questions) if outcomes else asked if isinstance(asked, int) and asked > 0 else None,
        shots=task.shots,
    )


def _config(content: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return the settings of a task; up to 0.10 they are named without the number of few-shot examples."""
    configs = section(content, "config_tasks")
    return section(configs, name if name in configs else task_name(name).name)


def _directions(config: Mapping[str, object]) -> dict[str, bool | None]:
    """Return the metrics of a task in their order, and whether more of each is better, None where nothing says so."""
    listed = config.get("metrics") or config.get("metric")
    found: dict[str, bool | None] = {}
    for entry in listed if isinstance(listed, list) else ():
        names, stated = entry.get("metric_name"), entry.get("higher_is_better")
        for name in [names] if isinstance(names, str) else names or ():
            given = stated.get(name) if isinstance(stated, Mapping) else stated
            found[name] = given if isinstance(given, bool) else None
    return found
