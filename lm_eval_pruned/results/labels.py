"""Labels for measurements; those with equal labels are disambiguated by the settings in which they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from lm_eval_pruned.errors import ArgumentError, unknown_name
from lm_eval_pruned.results.area import AREA
from lm_eval_pruned.results.measurement import Key
from lm_eval_pruned.results.records.configuration import VERSION
from lm_eval_pruned.results.records.metrics import RATE
from lm_eval_pruned.results.records.run_settings import Settings


def distinctions(keys: Collection[Key], *, without: Collection[str] = ()) -> dict[Key, str]:
    """Return the settings that tell a measurement from those with an equal label, as text; "" where the label does.

    Labels are equal where model, pruning, task and budget are. All lines of a run name the same settings, but for those
    in `without`. Where all settings are equal too, it is the evidence that tells two models of one name apart.
    """
    by_label: dict[object, list[Settings]] = {}
    by_settings: dict[object, list[Settings]] = {}
    for key in keys:
        by_label.setdefault(_label(key), []).append(key.configuration.settings)
        by_settings.setdefault(_asked(key), []).append(key.configuration.evidence)
    shown: dict[tuple[str, str], set[str]] = {}
    for key in keys:
        names = _differing(by_label[_label(key)]) | _differing(by_settings[_asked(key)])
        shown.setdefault(_run(key), set()).update(names)
    return {
        key: " ".join(
            f"{name}={value}"
            for name, value in (*key.configuration.settings, *key.configuration.evidence)
            if name in shown[_run(key)] and name not in without
        )
        for key in keys
    }


def line_names(keys: Collection[Key]) -> dict[Key, str]:
    """Return a readable name of each line: model, pruning, task, and the settings that distinguish it."""
    return {key: _joined(*_run(key), _task(key), settings) for key, settings in distinctions(keys).items()}


def run_labels(keys: Collection[Key]) -> dict[Key, str]:
    """Return the label of the run that each line belongs to: model, pruning, and the settings that distinguish it.

    Each task of a run has a version of its own, which does not distinguish runs.
    """
    return {key: _joined(*_run(key), settings) for key, settings in distinctions(keys, without={VERSION}).items()}


def find_run(keys: Collection[Key], label: str) -> list[Key]:
    """Return the lines of the run with this label, or with a label that this is a part of.

    Case does not count, nor do the dots between the parts. A whole label, or the whole of one of its parts, goes before
    labels that only contain the words. Of several versions of a task, the newest run's is returned.

    Raises:
        UnknownNameError: no label contains it.
        ArgumentError: labels of several runs contain it.
    """
    labels, wanted = run_labels(keys), _plain(label)
    exact = [key for key, text in labels.items() if wanted == _plain(text)]
    named = exact or [key for key in labels if wanted in {*map(_plain, (*_run(key), " ".join(_run(key))))}]
    found = named or [key for key, text in labels.items() if wanted and wanted in _plain(text)]
    if not found:
        raise unknown_name("run", label, labels.values())
    found = list({(_point(key), labels[key]): key for key in found}.values())
    points = Counter(_point(key) for key in found)
    if len({_run(key) for key in found}) > 1 or max(points.values()) > 1:
        choices = "; ".join(sorted({labels[key] for key in found}))
        raise ArgumentError(f"--against {label!r} is a part of several labels: give one of them whole: {choices}")
    return found


def _plain(label: str) -> str:
    return " ".join(label.replace("·", " ").lower().split())


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


def _differing(given: Sequence[Settings]) -> set[str]:
    sets = [set(one) for one in given]
    return {name for name, _ in sets[0].union(*sets) - sets[0].intersection(*sets)}


def _run(key: Key) -> tuple[str, str]:
    return key.configuration.model, key.configuration.label


def _point(key: Key) -> tuple[object, ...]:
    return key.task, key.budget, key.filter, key.metric


def _label(key: Key) -> tuple[object, ...]:
    return *_run(key), key.task, key.budget, key.filter + _metric_mark(key)


def _asked(key: Key) -> tuple[object, ...]:
    return *_label(key), key.configuration.settings


def _task(key: Key) -> str:
    """Return the task with its budget, unless its name ends in it, and its filter and metric where they are unusual."""
    is_named = key.budget is None or key.task.endswith(f"_{key.budget}")
    budget = "" if is_named else f" at {key.budget} tokens"
    return key.task + budget + ("" if key.filter == "none" else f" ({key.filter})") + _metric_mark(key)


def _metric_mark(key: Key) -> str:
    """Name the metrics that stand next to another of the same task: areas, and the rate of a perplexity."""
    return f" ({key.metric})" if key.metric.startswith(AREA) or key.metric == RATE else ""
