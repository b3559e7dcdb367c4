"""Layouts of results files: those of all versions of the harness since 0.2, brought into the one of its newest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

# The filter that later versions name where none was asked for. Up to 0.3 there were no filters.
NO_FILTER = "none"
# Entries of a task's results that are not metrics.
_NOT_METRICS = frozenset(("alias", "name", "samples", "sample_len", "sample_count", "num_samples", "version", "tab"))
# What --output_path appends to the name of a file.
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d)-(\d\d)-(\d\d(?:\.\d+)?)$")
# What lmms-eval begins it with.
_STAMP_OF_LMMS = re.compile(r"(\d{8})_(\d{6})_results$")


def is_results(content: object) -> bool:
    """Whether parsed JSON is a results file of the harness: tasks with metrics, and their versions or settings.

    Example:
        >>> is_results({"results": {"piqa": {"acc": 0.8, "acc_stderr": 0.01}}, "versions": {"piqa": 0}})
        True
        >>> is_results({"results": {"page": {"title": "a"}}}), is_results({"results": [], "config": {}})
        (False, False)
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("results"), Mapping):
        return False
    entries = [entry for entry in content["results"].values() if isinstance(entry, Mapping)]
    keys = [str(key) for entry in entries for key in entry]
    named = any(isinstance(content.get(name), Mapping) for name in ("versions", "configs", "n-shot"))
    return named or any("," in key or key.endswith("_stderr") for key in keys)


def newest_layout(content: Mapping[str, object], path: Path) -> dict[str, object]:
    """Return a results file as the newest version of the harness would have written it.

    Metrics get their filter, `metadata` that is a list becomes one object, and what a version does not write (shots,
    questions asked, date, the model's name) is taken from where it stands. What cannot be used is left out.
    """
    results = {
        str(task): entry for task, entry in _object(content.get("results")).items() if isinstance(entry, Mapping)
    }
    config = dict(_object(content.get("config")))
    if not isinstance(config.get("model_args"), str | Mapping):
        config.pop("model_args", None)
    return {
        **content,
        "config": config,
        "results": {task: _with_filters(entry) for task, entry in results.items()},
        "configs": {
            str(task): _task_config(given)
            for task, given in _object(content.get("configs")).items()
            if isinstance(given, Mapping)
        },
        "versions": _object(content.get("versions")),
        "n-shot": _object(content.get("n-shot")) or dict.fromkeys(results, config.get("num_fewshot")),
        "n-samples": {
            task: {"effective": count}
            for task, entry in results.items()
            if (count := _questions(_object(content.get("n-samples")).get(task), entry)) is not None
        },
        "date": content.get("date") if _is_number(content.get("date")) else file_date(path),
        "model_name": content.get("model_name") or _model_name(content, config, path),
    }


def is_group(content: Mapping[str, object], task: str) -> bool:
    """Whether results are those of a group of tasks: its tasks have settings, and it has none of its own."""
    configs = _object(content.get("configs"))
    return task not in configs and any(name in configs for name in _object(content.get("results")))


def _with_filters(entry: Mapping[str, object]) -> dict[str, object]:
    if any("," in str(key) for key in entry):
        return {str(key): value for key, value in entry.items() if "," in str(key)}
    return {f"{key},{NO_FILTER}": value for key, value in entry.items() if str(key).strip() and key not in _NOT_METRICS}


def _task_config(given: Mapping[str, object]) -> dict[str, object]:
    metadata = given.get("metadata")
    parts = metadata if isinstance(metadata, list) else [metadata]
    merged = {name: value for part in parts if isinstance(part, Mapping) for name, value in part.items()}
    return {**given, "metadata": merged, "generation_kwargs": _object(given.get("generation_kwargs"))}


def _questions(given: object, entry: Mapping[str, object]) -> int | None:
    for count in (_object(given).get("effective"), entry.get("sample_len"), entry.get("samples")):
        if _is_number(count) and count >= 1 and count == int(count):  # type: ignore[operator, call-overload]
            return int(count)  # type: ignore[call-overload, no-any-return]
    return None


def _model_name(content: Mapping[str, object], config: Mapping[str, object], path: Path) -> object:
    """Name the model of a file without `model_name`; by its path if nothing else does, so that no two are merged.

    Model arguments that name it go before this name.
    """
    return config.get("model") or content.get("model") or f"{path.parent.name}/{path.name}"


def file_date(path: Path) -> float:
    """Return the time in a file's name, or else that of its last change, in seconds since 1970."""
    if found := _STAMP.search(path.stem) or _STAMP_OF_LMMS.match(path.stem):
        try:
            separator = ":" if found.re is _STAMP else "T"
            return datetime.fromisoformat(separator.join(found.groups())).replace(tzinfo=UTC).timestamp()
        except ValueError:
            pass
    return path.stat().st_mtime


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
