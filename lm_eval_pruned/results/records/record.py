"""Read one finished run from a results file of the harness and the samples files next to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.files import NOT_JSON, is_file
from lm_eval_pruned.results.records.checkpoint import NOTHING_KNOWN, Found, find_report
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
from lm_eval_pruned.results.records.divergence import Divergence
from lm_eval_pruned.results.records.groups import group_results
from lm_eval_pruned.results.records.identity import backend
from lm_eval_pruned.results.records.layout import is_group, is_results, newest_layout
from lm_eval_pruned.results.records.metrics import (
    is_row_mean,
    row_metric,
    stated_direction,
)
from lm_eval_pruned.results.records.pruned import BlockSparsity, number, read_report
from lm_eval_pruned.results.records.run_settings import Settings, model_args, section
from lm_eval_pruned.results.records.samples import Outcomes, read_samples, samples_outcomes
from lm_eval_pruned.results.records.samples_files import samples_file
from lm_eval_pruned.results.records.stopped import stopped_task
from lm_eval_pruned.results.records.task_result import PREDICTED, TaskResult, chosen_metric, task_values

# Model arguments with which the weights are not those of the checkpoint's own files.
_OTHER_WEIGHTS = ("peft", "delta", "lora_local_path", "gguf_file", "subfolder")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run; `sparsity` was counted from the weights, and is None where the file does not give it.

    `blocks` and `fingerprint` come from the pruning report, empty where there is none. `problems` has a sentence for
    each samples file that could not be read. `divergence` is in a file of its own.
    """

    path: Path
    date: float
    configuration: Configuration
    seeds: Settings
    sparsity: float | None
    blocks: tuple[BlockSparsity, ...]
    results: tuple[TaskResult, ...]
    problems: tuple[str, ...]
    fingerprint: str = ""
    divergence: Divergence | None = None


class NotResultsError(DataError):
    """A file is JSON, but of another kind than the results of the harness."""


def read_record(path: Path) -> Record:
    """Read one results file, of harness 0.2 or later, and its samples.

    Raises:
        NotResultsError: it is JSON of another kind.
        DataError: it cannot be read, or no task in it has a result.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8-sig"))
        if not is_results(given):
            raise NotResultsError(f"{path} is not a results file of lm_eval: it lacks results, versions or configs")
        layout = newest_layout(given, path)
        date = number(layout["date"]) or path.stat().st_mtime
        content, unused = _with_report(layout, date)
        problems = [unused] if unused else []
        names = list(section(content, "results"))
        results = [
            result
            for task in names
            if not is_group(content, task)
            for result in _results(path, content, task, problems)
        ]
        results += [
            result for group in names if is_group(content, group) for result in group_results(content, group, results)
        ]
        if not results:
            raise DataError(problems[0] if problems else f"{path} holds no results: no task was run to its end")
        report = section(section(content, "config"), "pruning")
        return Record(
            path=path,
            date=date,
            configuration=run_configuration(content),
            seeds=run_seeds(content),
            **read_report(report)._asdict(),
            results=tuple(results),
            problems=tuple(problems),
        )
    except DataError as problem:
        raise (problem if str(path) in str(problem) else DataError(f"{path} cannot be read: {problem}")) from None
    except (*NOT_JSON, TypeError, AttributeError) as problem:
        raise DataError(f"{path} is not a results file of lm_eval: {problem!s:.200}") from None
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror}") from None


def _with_report(content: Mapping[str, object], date: float) -> tuple[Mapping[str, object], str]:
    """Add the report of its checkpoint to the results of a model type that writes none; say why if it is not used."""
    config = section(content, "config")
    arguments = model_args(config)
    source = arguments.get("pretrained")
    if "pruning" in config:
        return content, ""
    if backend(content) == "object":
        # Whatever was done to it before it was passed to the harness.
        found = Found(NOTHING_KNOWN)
    elif isinstance(source, str):
        has_others = any(arguments.get(name) for name in _OTHER_WEIGHTS)
        found = find_report(source, date=date, commit=config.get("model_sha"), other_weights=has_others)
    else:
        return content, ""
    return {**content, "config": {**config, "pruning": found.report}}, found.problem


def _results(path: Path, content: Mapping[str, object], task: str, problems: list[str]) -> Iterator[TaskResult]:
    """Yield the results of a task under each filter, and append what is wrong with it to `problems`.

    A perplexity, which is not a mean over rows, is followed by the bits per byte that are.
    """
    values = task_values(section(section(content, "results"), task))
    if not values:
        problems.append(f"{path}: {task} has no metric: {PREDICTED}")
    compared: dict[str, str] = {}
    for name, one in values.items():
        try:
            compared[name] = chosen_metric(one)
        except ValueError as problem:
            problems.append(f"{path}: {task} is left out: {problem}")
    measured = {name: row_metric(values[name].metrics, metric) for name, metric in compared.items()}
    try:
        outcomes = _outcomes(path, content, task, measured)
    except DataError as problem:
        problems.append(str(problem))
        outcomes = {}
    asked = _questions(content, task)
    budget, named = task_budget(content, task), TTS.fullmatch(task)
    for name, metric in dict.fromkeys([*compared.items(), *measured.items()]):
        known = outcomes.get(name) if metric == measured[name] else None
        if known is not None and not is_row_mean(
            content, task, metric, reported=values[name].metrics[metric], mean=known.mean
        ):
            known = None
        yield TaskResult(
            task=task,
            filter=name,
            benchmark=named[1] if named else task.removesuffix(f"_{budget}"),
            budget=budget,
            metric=metric,
            higher_is_better=stated_direction(content, task, metric),
            settings=task_settings(content, task),
            seeds=task_seeds(content, task),
            metrics=values[name].metrics,
            errors=values[name].errors,
            outcomes=known,
            questions=asked if known is None else len(known.questions),
            shots=task_shots(content, task),
            stopped=stopped_task(content, task),
        )


def _outcomes(path: Path, content: Mapping[str, object], task: str, metrics: Mapping[str, str]) -> dict[str, Outcomes]:
    arguments = section(content, "config").get("model_args")
    file = samples_file(path, task, arguments if isinstance(arguments, str) else "")
    embedded = content.get("samples")
    rows = embedded.get(task) if isinstance(embedded, Mapping) else None
    if not metrics:
        return {}
    if is_file(file):
        outcomes = read_samples(file, metrics)
    elif isinstance(rows, list):
        # What `simple_evaluate` returns has the samples in it.
        file, outcomes = path, samples_outcomes(path, rows, metrics)
    else:
        return {}
    asked = _questions(content, task)
    for outcome in outcomes.values():
        if asked is not None and len(outcome.questions) != asked:
            raise DataError(f"{file} holds {len(outcome.questions)} of {asked} questions")
    return outcomes


def _questions(content: Mapping[str, object], task: str) -> int | None:
    asked = section(section(content, "n-samples"), task).get("effective")
    return asked if isinstance(asked, int) else None
