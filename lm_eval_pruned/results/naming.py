"""Names of lines for people: what looks alike is told apart by the settings in which it differs."""

from __future__ import annotations

from collections.abc import Collection

from lm_eval_pruned.results.area import AREA
from lm_eval_pruned.results.merge import Key


def distinctions(keys: Collection[Key]) -> dict[Key, str]:
    """Return, for lines that have model, pruning and task alike, the settings in which they differ; "" for others."""
    alike: dict[tuple[str, str, str, str], list[set[tuple[str, str]]]] = {}
    for key in keys:
        alike.setdefault(_looks(key), []).append(set(key.configuration.settings))
    shared = {looks: set.intersection(*settings) for looks, settings in alike.items()}
    return {
        key: " ".join(f"{name}={value}" for name, value in key.configuration.settings if (name, value) not in common)
        for key in keys
        for common in (shared[_looks(key)],)
    }


def line_names(keys: Collection[Key]) -> dict[Key, str]:
    """Return a name for people of each line: model, pruning, task, and what else sets it apart."""
    return {
        key: " · ".join(part for part in (key.configuration.model, key.configuration.label, task, settings) if part)
        for key, settings in distinctions(keys).items()
        for task in (key.task + ("" if key.filter == "none" else f" ({key.filter})") + _area_mark(key),)
    }


def _looks(key: Key) -> tuple[str, str, str, str]:
    return key.configuration.model, key.configuration.label, key.task, key.filter + _area_mark(key)


def _area_mark(key: Key) -> str:
    return f" ({key.metric})" if key.metric.startswith(AREA) else ""
