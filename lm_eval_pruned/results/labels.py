"""Labels for measurements; those with equal labels are disambiguated by the settings in which they differ."""

from __future__ import annotations

from collections.abc import Collection

from lm_eval_pruned.results.area import AREA
from lm_eval_pruned.results.measurement import Key


def distinctions(keys: Collection[Key]) -> dict[Key, str]:
    """Return the settings that tell a measurement from those with an equal label, as text; "" where the label does.

    Labels are equal where model, pruning, task and budget are. All lines of a run name the same settings.
    """
    by_label: dict[tuple[object, ...], list[set[tuple[str, str]]]] = {}
    for key in keys:
        by_label.setdefault(_label(key), []).append(set(key.configuration.settings))
    differing = {label: given[0].union(*given) - given[0].intersection(*given) for label, given in by_label.items()}
    shown: dict[tuple[str, str], set[str]] = {}
    for key in keys:
        shown.setdefault(_run(key), set()).update(name for name, _ in differing[_label(key)])
    return {
        key: " ".join(f"{name}={value}" for name, value in key.configuration.settings if name in shown[_run(key)])
        for key in keys
    }


def line_names(keys: Collection[Key]) -> dict[Key, str]:
    """Return a readable name of each line: model, pruning, task, and the settings that distinguish it."""
    return {
        key: " · ".join(part for part in (key.configuration.model, key.configuration.label, task, settings) if part)
        for key, settings in distinctions(keys).items()
        for task in (_task(key),)
    }


def _run(key: Key) -> tuple[str, str]:
    return key.configuration.model, key.configuration.label


def _label(key: Key) -> tuple[object, ...]:
    return *_run(key), key.task, key.budget, key.filter + _area_mark(key)


def _task(key: Key) -> str:
    """Return the task with its budget, unless its name ends in it, and its filter and metric where they are unusual."""
    is_named = key.budget is None or key.task.endswith(f"_{key.budget}")
    budget = "" if is_named else f" at {key.budget} tokens"
    return key.task + budget + ("" if key.filter == "none" else f" ({key.filter})") + _area_mark(key)


def _area_mark(key: Key) -> str:
    return f" ({key.metric})" if key.metric.startswith(AREA) else ""
