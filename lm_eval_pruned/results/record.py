"""A record is one finished run, read from a results file of the harness."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lm_eval_pruned.errors import DataError, MissingDataError

_TASK = re.compile(r"(.+_tts)_(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One benchmark at one thinking budget: metrics by name, and the standard error of each where it is known."""

    budget: int
    metrics: Mapping[str, float]
    errors: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run: what was pruned, and a curve of points, rising in budget, for each benchmark."""

    path: Path
    label: str
    sparsity: float
    curves: Mapping[str, tuple[Point, ...]]


def find_results(folder: Path) -> list[Path]:
    """Return all results files below `folder`, oldest first.

    Raises:
        MissingDataError: there is none.
    """
    files = sorted(folder.rglob("results_*.json"), key=lambda path: path.name)
    if not files:
        raise MissingDataError(f"{folder} holds no results_*.json: run lm_eval with --output_path {folder} first")
    return files


def read_record(path: Path) -> Record:
    """Read one results file.

    Raises:
        DataError: it is not a results file of the harness.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        results, pruning = content["results"], content["config"].get("pruning", {})
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a results file of lm_eval: {error!r}") from None
    curves: dict[str, list[Point]] = {}
    for task, values in results.items():
        if match := _TASK.fullmatch(task):
            curves.setdefault(match[1], []).append(_point(int(match[2]), values))
    return Record(
        path=path,
        label=_label(pruning.get("config", {})),
        sparsity=float(pruning.get("achieved_sparsity", 0.0)),
        curves={name: tuple(sorted(points, key=lambda point: point.budget)) for name, points in curves.items()},
    )


def _point(budget: int, values: Mapping[str, object]) -> Point:
    metrics, errors = {}, {}
    for key, value in values.items():
        name, comma, _ = key.partition(",")
        if not comma or not isinstance(value, int | float):
            continue
        if name.endswith("_stderr"):
            errors[name.removesuffix("_stderr")] = float(value)
        else:
            metrics[name] = float(value)
    return Point(budget=budget, metrics=metrics, errors=errors)


def _label(config: Mapping[str, object]) -> str:
    method = config.get("method", "none")
    return "dense" if method == "none" else f"{method} {config.get('alloc')} {config.get('sparsity')}"
