"""Details of lighteval next to its results files: a Parquet file for each task, a row for each question."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import NamedTuple

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.files import MALFORMED
from lm_eval_pruned.results.records.answered import Answered, question_key

# A task, its number of few-shot examples, and, up to 0.10, whether these may be fewer.
_NAME = re.compile(r"(.+?)\|(\d+)(?:\|[01])?")
# Columns that are read: now, and up to 0.10. The others hold tokens.
_READ = {"doc", "metric", "model_response", "example", "metrics", "gold", "gold_index", "choices", "predictions"}


class TaskName(NamedTuple):
    """A task's name without its number of few-shot examples, and that number as text, "" if unknown."""

    name: str
    shots: str


def lighteval_answers(path: Path, task: str, shots: str, metric: str) -> Iterator[Answered]:
    """Yield the questions of a task with this number of few-shot examples, from the details of a results file.

    Raises:
        DataError: the details cannot be read, or lack the metric.
    """
    for file in _details(path):
        name = file.stem.removeprefix("details_").removesuffix(f"_{_stamp(path)}")
        if task_name(name) == (task, shots):
            yield from _answered(file, metric)


def task_name(name: str) -> TaskName:
    """Split the name of a task.

    Example:
        >>> task_name("lighteval|gsm8k|5|0"), task_name("digits|0"), task_name("digits")[:]
        (TaskName(name='lighteval|gsm8k', shots='5'), TaskName(name='digits', shots='0'), ('digits', ''))
    """
    found = _NAME.fullmatch(name)
    return TaskName(found[1], found[2]) if found else TaskName(name, "")


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
