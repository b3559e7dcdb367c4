"""Read one finished run from a results file of the harness and the samples files next to it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.files import NOT_JSON
from lm_eval_pruned.results.records.configuration import (
    TTS,
    Configuration,
    run_configuration,
    run_seeds,
    task_budget,
    task_seeds,
    task_settings,
    task_shots,
)
from lm_eval_pruned.results.records.metrics import compared_metric, is_row_mean, stated_direction
from lm_eval_pruned.results.records.run_settings import Settings, section
from lm_eval_pruned.results.records.samples import Outcomes, read_samples


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """Results of one task under one filter: metrics and standard errors by name, and its outcomes if known.

    `metric` is the one that is compared, and `higher_is_better` what the file says of it, None if nothing. `benchmark`
    is the task's name without its thinking budget. `shots` is the number of few-shot examples, "" where the file does
    not say.
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
    shots: str = ""


class BlockSparsity(NamedTuple):
    """Sparsities of a decoder block: targets of its attention and its MLP, and the achieved one of the whole block."""

    attn: float
    mlp: float
    achieved: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run; `sparsity` was counted from the weights, and is None where the file does not give it.

    `blocks` come from the pruning report, empty where there is none. `problems` has a sentence for each samples file
    that could not be read.
    """

    path: Path
    date: float
    configuration: Configuration
    seeds: Settings
    sparsity: float | None
    blocks: tuple[BlockSparsity, ...]
    results: tuple[TaskResult, ...]
    problems: tuple[str, ...]


def read_record(path: Path) -> Record:
    """Read one results file and its samples.

    Raises:
        DataError: it cannot be read or is not a results file of the harness.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, Mapping) or "results" not in content or "config" not in content:
            raise DataError("it lacks results or config")
        report = section(section(content, "config"), "pruning")
        problems: list[str] = []
        # Task groups have results too, but no configuration.
        known = section(content, "configs") or section(content, "results")
        results = [
            result
            for task in section(content, "results")
            if task in known
            for result in _results(path, content, task, problems)
        ]
        return Record(
            path=path,
            date=_number(content.get("date")) or path.stat().st_mtime,
            configuration=run_configuration(content),
            seeds=run_seeds(content),
            sparsity=_number(report.get("achieved_sparsity")),
            blocks=_blocks(report.get("blocks")),
            results=tuple(results),
            problems=tuple(problems),
        )
    except (*NOT_JSON, TypeError, AttributeError) as problem:
        raise DataError(f"{path} is not a results file of lm_eval: {problem!s:.200}") from None
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror}") from None


def _results(path: Path, content: Mapping[str, object], task: str, problems: list[str]) -> Iterator[TaskResult]:
    """Yield the result of a task under each filter, and append what is wrong with its samples to `problems`."""
    metrics, errors = _metrics(section(section(content, "results"), task))
    compared = {name: metric for name, values in metrics.items() if (metric := compared_metric(values)) is not None}
    try:
        outcomes = _outcomes(path, content, task, compared)
    except DataError as problem:
        problems.append(str(problem))
        outcomes = {}
    budget, named = task_budget(content, task), TTS.fullmatch(task)
    for name, metric in compared.items():
        own = outcomes.get(name)
        if own is not None and not is_row_mean(
            content, task, metric, reported=metrics[name][metric], mean=float(own.correct.mean())
        ):
            own = None
        yield TaskResult(
            task=task,
            filter=name,
            benchmark=named[1] if named else task.removesuffix(f"_{budget}"),
            budget=budget,
            metric=metric,
            higher_is_better=stated_direction(content, task, metric),
            settings=task_settings(content, task),
            seeds=task_seeds(content, task),
            metrics=metrics[name],
            errors=errors.get(name, {}),
            outcomes=own,
            shots=task_shots(content, task),
        )


def samples_file(path: Path, task: str) -> Path:
    """Return the path of a task's samples file: next to the results file, ending in the same date."""
    return path.with_name(f"samples_{task}_{path.stem.rpartition('_')[2]}.jsonl")


def _outcomes(path: Path, content: Mapping[str, object], task: str, metrics: Mapping[str, str]) -> dict[str, Outcomes]:
    file = samples_file(path, task)
    if not metrics or not file.exists():
        return {}
    outcomes = read_samples(file, metrics)
    asked = section(section(content, "n-samples"), task).get("effective")
    for outcome in outcomes.values():
        if isinstance(asked, int) and len(outcome.questions) != asked:
            raise DataError(f"{file} holds {len(outcome.questions)} of {asked} questions")
    return outcomes


def _metrics(values: Mapping[str, object]) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Split entries named "metric,filter" into the metrics and the standard errors of each filter."""
    metrics: dict[str, dict[str, float]] = {}
    errors: dict[str, dict[str, float]] = {}
    for key, given in values.items():
        name, comma, filter_name = key.partition(",")
        value = _number(given)
        if not comma or value is None:
            continue
        if name.endswith("_stderr"):
            errors.setdefault(filter_name, {})[name.removesuffix("_stderr")] = value
        else:
            metrics.setdefault(filter_name, {})[name] = value
    return metrics, errors


def _blocks(given: object) -> tuple[BlockSparsity, ...]:
    """Return the blocks of a pruning report, or () if one of them is malformed."""
    if not isinstance(given, list) or not all(isinstance(block, Mapping) for block in given):
        return ()
    values = [[_number(block.get(name)) for name in BlockSparsity._fields] for block in given]
    blocks = [BlockSparsity(*(value for value in row if value is not None)) for row in values if None not in row]
    return tuple(blocks) if len(blocks) == len(given) else ()


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # An integer may be too large for a float.
    return float(value) if abs(value) <= sys.float_info.max else None
