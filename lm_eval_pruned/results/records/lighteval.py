"""Results files of lighteval, and the details next to them: a Parquet file for each task, a row for each question."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import NamedTuple

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.files import MALFORMED
from lm_eval_pruned.results.records.answered import Answered, answered_outcomes, question_key
from lm_eval_pruned.results.records.configuration import HARDWARE, Configuration
from lm_eval_pruned.results.records.layout import file_date
from lm_eval_pruned.results.records.metrics import is_same
from lm_eval_pruned.results.records.record import Record, TaskResult
from lm_eval_pruned.results.records.run_settings import as_settings, as_text, is_seed, section

# Means over tasks, which have no questions of their own.
_AVERAGES = re.compile(r"all|.*:_average(\|.*)?")
# A task, its number of few-shot examples, and, up to 0.10, whether these may be fewer.
_NAME = re.compile(r"(.+?)\|(\d+)(?:\|[01])?")
_WHERE = HARDWARE | {"model_name", "generation_parameters", "cache_dir", "model_parallel", "continuous_batching"}
# How a task is asked, apart from its few-shot examples.
_TASK_SETTINGS = ("generation_size", "stop_sequence", "num_samples")
# Columns that are read: now, and up to 0.10. The others hold tokens.
_READ = {"doc", "metric", "model_response", "example", "metrics", "gold", "gold_index", "choices", "predictions"}


class _Task(NamedTuple):
    """A task's name without its number of few-shot examples, and that number as text, "" if unknown."""

    name: str
    shots: str


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
        problems: list[str] = []
        results = [
            result
            for name in section(content, "results")
            if not _AVERAGES.fullmatch(name) and (result := _result(path, content, name, problems)) is not None
        ]
        if not results:
            raise DataError(problems[0] if problems else f"{path} holds no results: no task was run to its end")
        # Up to 0.10 the settings of the model stand among those of the run.
        model = section(general, "model_config")
        decoding = section(model or general, "generation_parameters")
        sha = general.get("model_sha")
        return Record(
            path=path,
            date=file_date(path),
            configuration=Configuration(
                model=str(general.get("model_name") or model.get("model_name") or f"{path.parent.name}/{path.name}"),
                pruning=(),
                settings=as_settings(
                    {
                        **{name: value for name, value in model.items() if name not in _WHERE and value is not False},
                        **decoding,
                        "backend": "lighteval",
                        "dtype": model.get("dtype") or general.get("model_dtype"),
                        "limit": general.get("max_samples"),
                    }
                ),
                evidence=as_settings({"model_sha": sha if isinstance(sha, str) else None}),
            ),
            seeds=as_text({name: value for name, value in decoding.items() if is_seed(name)}),
            sparsity=None,
            blocks=(),
            results=tuple(results),
            problems=tuple(problems),
        )
    except DataError as problem:
        raise (problem if str(path) in str(problem) else DataError(f"{path} cannot be read: {problem}")) from None
    except MALFORMED as problem:
        raise DataError(f"{path} is not a results file of lighteval: {problem!s:.200}") from None
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror}") from None


def lighteval_answers(path: Path, task: str, shots: str, metric: str) -> Iterator[Answered]:
    """Yield the questions of a task with this number of few-shot examples, from the details of a results file.

    Raises:
        DataError: the details cannot be read, or lack the metric.
    """
    for file in _details(path):
        name = file.stem.removeprefix("details_").removesuffix(f"_{_stamp(path)}")
        if _task(name) == (task, shots):
            yield from _answered(file, metric)


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
    task, config = _task(name), _config(content, name)
    directions = _directions(config)
    # The task names its metrics in an order, and the most important one first.
    metric = next((key for key in directions if key in metrics), next(iter(metrics)))
    try:
        outcomes = answered_outcomes(lighteval_answers(path, *task, metric), path)
    except DataError as problem:
        problems.append(str(problem))
        outcomes = None
    # Of another aggregation than the mean, the rows hold something else.
    if outcomes is not None and not is_same(metrics[metric], float(outcomes.correct.mean())):
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


def _task(name: str) -> _Task:
    found = _NAME.fullmatch(name)
    return _Task(found[1], found[2]) if found else _Task(name, "")


def _config(content: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return the settings of a task; up to 0.10 they are named without the number of few-shot examples."""
    configs = section(content, "config_tasks")
    return section(configs, name if name in configs else _task(name).name)


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


def _stamp(path: Path) -> str:
    return path.stem.removeprefix("results_")


def _details(path: Path) -> list[Path]:
    """Find the details of a run: in the folder of its time, below `details`, or next to the file as on the hub."""
    stamp = _stamp(path)
    pattern = f"{escape(stamp)}/details_*_{escape(stamp)}.parquet"
    places = (path.parent.glob(pattern), *((parent / "details").rglob(pattern) for parent in path.parents))
    return next((found for place in places if (found := sorted(place))), [])


def _answered(file: Path, metric: str) -> Iterator[Answered]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file) as rows:
            columns = [name for name in rows.schema_arrow.names if name in _READ]
            for batch in rows.iter_batches(batch_size=256, columns=columns):
                for row in batch.to_pylist():
                    yield _of_row(row, metric) if "doc" in row else _of_older_row(row, metric)
    except (*MALFORMED, ArrowException) as problem:
        raise DataError(f"{file} is cut short or holds no details of lighteval ({problem!r:.200})") from None
    except OSError as problem:
        raise DataError(f"{file} cannot be read: {problem.strerror or problem}") from None


def _of_row(row: Mapping[str, Mapping[str, object]], metric: str) -> Answered:
    document, response = row["doc"], row["model_response"]
    return _one(
        str(document["query"]),
        choices=_listed(document["choices"]),
        gold=[_listed(document["choices"])[int(str(index))] for index in _listed(document["gold_index"])],
        value=row["metric"][metric],
        texts=_listed(response.get("text")),
    )


def _of_older_row(row: Mapping[str, object], metric: str) -> Answered:
    """Return what a row of lighteval up to 0.10 holds."""
    choices, gold = _listed(row["choices"]), _listed(row["gold"])
    return _one(
        str(row["example"]),
        choices=choices,
        gold=gold or [choices[int(str(index))] for index in _listed(row["gold_index"])],
        value=row["metrics"][metric],  # type: ignore[index]
        texts=_listed(row["predictions"]),
    )


def _one(question: str, *, choices: Sequence[object], gold: Sequence[object], value: object, texts: object) -> Answered:
    golds = [str(one) for one in gold]
    offered = [str(one) for one in choices]
    if not isinstance(value, int | float):
        raise TypeError(f"the metric is {value!r}, not a number")
    return Answered(
        # Where there is nothing to choose from, the choices are the gold answers again, or are not there.
        key=question_key(question, golds, offered if set(offered) - set(golds) else []),
        value=float(value),
        question=question,
        gold=" or ".join(golds),
        responses=[one for one in texts if isinstance(one, str)] if isinstance(texts, list) else [],
    )


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [] if value is None else [value]
