"""Names of lines for people: what looks alike is told apart by the settings in which it differs."""

from __future__ import annotations

from collections.abc import Collection

from lm_eval_pruned.results.area import AREA
from lm_eval_pruned.results.measurement import Key


def distinctions(keys: Collection[Key]) -> dict[Key, str]:
    """Return the settings that tell a configuration from those that look like it; "" where nothing does.

    What looks like it has model, pruning, task and budget alike. All lines of a configuration name the same settings.
    """
    alike: dict[tuple[object, ...], list[set[tuple[str, str]]]] = {}
    for key in keys:
        alike.setdefault(_looks(key), []).append(set(key.configuration.settings))
    changing = {looks: given[0].union(*given) - given[0].intersection(*given) for looks, given in alike.items()}
    apart: dict[tuple[str, str], set[str]] = {}
    for key in keys:
        apart.setdefault(_run(key), set()).update(name for name, _ in changing[_looks(key)])
    return {
        key: " ".join(f"{name}={value}" for name, value in key.configuration.settings if name in apart[_run(key)])
        for key in keys
    }


def line_names(keys: Collection[Key]) -> dict[Key, str]:
    """Return a name for people of each line: model, pruning, task, and what else sets it apart."""
    return {
        key: " · ".join(part for part in (key.configuration.model, key.configuration.label, task, settings) if part)
        for key, settings in distinctions(keys).items()
        for task in (_task(key),)
    }


def _run(key: Key) -> tuple[str, str]:
    return key.configuration.model, key.configuration.label


def _looks(key: Key) -> tuple[object, ...]:
    return *_run(key), key.task, key.budget, key.filter + _area_mark(key)


def _task(key: Key) -> str:
    """Return the task with its budget, which most tasks have in their names, and whatever else is not usual."""
    is_named = key.budget is None or key.task.endswith(f"_{key.budget}")
    budget = "" if is_named else f" at {key.budget} tokens"
    return key.task + budget + ("" if key.filter == "none" else f" ({key.filter})") + _area_mark(key)


def _area_mark(key: Key) -> str:
    return f" ({key.metric})" if key.metric.startswith(AREA) else ""
