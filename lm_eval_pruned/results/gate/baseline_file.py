"""Read and write a baseline: a JSON file of accepted measurements with the outcome of every question."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lm_eval_pruned import __version__
from lm_eval_pruned.errors import DataError, MissingDataError
from lm_eval_pruned.files import MALFORMED
from lm_eval_pruned.results.measurement import Key, Measurement
from lm_eval_pruned.results.records.configuration import Configuration
from lm_eval_pruned.results.records.layout import is_results
from lm_eval_pruned.results.records.metrics import direction
from lm_eval_pruned.results.records.run_settings import as_settings, section
from lm_eval_pruned.results.records.samples import Outcomes

SCHEMA_VERSION = 1
# Settings in which a run may differ from its baseline; questions that `limit` leaves out are reported one by one.
IGNORED = ("limit",)


def dump_baseline(measurements: Mapping[Key, Measurement]) -> str:
    """Return measurements as JSON, leaving out those without outcomes.

    Raises:
        DataError: no measurement has outcomes, or a sweep stopped one early.
    """
    for key, one in measurements.items():
        if one.stopped is not None:
            raise DataError(
                f"{key.configuration.model} {key.configuration.label} · {key.task}: {one.stopped.words()}; a baseline "
                "needs all questions: finish it by the same sweep without --stop early"
            )
    entries = [_entry(key, one, one.outcomes) for key, one in measurements.items() if one.outcomes is not None]
    if not entries:
        raise DataError(
            "these runs hold no outcome of any question: run lm_eval with --log_samples, on tasks whose metric has a "
            "value for each question (bleu, ter and chrf have none)"
        )
    content = {"schema_version": SCHEMA_VERSION, "lm_eval_pruned": __version__, "measurements": entries}
    return json.dumps(content, indent=1) + "\n"


def load_baseline(path: Path, *, ignoring: Collection[str] = IGNORED) -> dict[Key, Measurement]:
    """Read a baseline file, leaving out the settings in `ignoring`.

    Raises:
        MissingDataError: there is no such file.
        DataError: it is not a baseline, has another schema version, or has runs that differ only in what is left out.
    """
    try:
        if path.is_dir():
            raise DataError(_is_runs(path, path))
        content = json.loads(path.read_text(encoding="utf-8"))
        if is_results(content):
            raise DataError(_is_runs(path, path.parent))
        version = content["schema_version"]
        if version == SCHEMA_VERSION:
            return _index([_measurement(entry, ignoring) for entry in content["measurements"]], path, ignoring)
    except DataError:
        raise
    except OSError as problem:
        raise MissingDataError(
            f"the baseline {path} cannot be read ({problem.strerror}): make one of accepted runs with "
            f"lm-eval-pruned baseline DIR --output {path}"
        ) from None
    except MALFORMED as problem:
        raise DataError(
            f"{path} is not a baseline ({problem!r:.200}): make one of accepted runs with "
            "lm-eval-pruned baseline DIR --output FILE.json"
        ) from None
    raise DataError(f"{path} has schema_version {version!r}, not {SCHEMA_VERSION}: make it anew")


def _is_runs(path: Path, folder: Path) -> str:
    return (
        f"{path} holds results of runs and is not a baseline: make one with lm-eval-pruned baseline {folder} "
        "--output baseline.json, and give --baseline baseline.json"
    )


def _entry(key: Key, measurement: Measurement, outcomes: Outcomes) -> dict[str, object]:
    questions = [f"{question:016x}" for question in outcomes.questions.tolist()]
    weights = (
        {} if outcomes.weights is None else {"weights": dict(zip(questions, outcomes.weights.tolist(), strict=True))}
    )
    return {
        "model": key.configuration.model,
        "pruning": dict(key.configuration.pruning),
        "settings": dict(key.configuration.settings),
        "evidence": dict(key.configuration.evidence),
        "task": key.task,
        "filter": key.filter,
        "metric": key.metric,
        "higher_is_better": measurement.higher_is_better,
        "benchmark": measurement.benchmark,
        "budget": measurement.budget,
        "sparsity": measurement.sparsity,
        "questions": dict(zip(questions, outcomes.correct.tolist(), strict=True)),
        **weights,
    }


def _index(
    measurements: Sequence[tuple[Key, Measurement]], path: Path, ignoring: Collection[str]
) -> dict[Key, Measurement]:
    if not measurements:
        raise DataError(f"{path} holds no measurement: make it anew")
    by_key = dict(measurements)
    if len(by_key) < len(measurements):
        names = ", ".join(sorted(ignoring))
        raise DataError(f"runs in {path} differ in {names} alone: leave something out of --across")
    return by_key


def _measurement(entry: Mapping[str, object], ignoring: Collection[str]) -> tuple[Key, Measurement]:
    settings = section(entry, "settings")
    configuration = Configuration(
        model=_text(entry, "model"),
        pruning=as_settings(section(entry, "pruning")),
        settings=as_settings({name: value for name, value in settings.items() if name not in ignoring}),
        evidence=as_settings(section(entry, "evidence")),
    )
    task, filter_name, metric = (_text(entry, name) for name in ("task", "filter", "metric"))
    key = Key(configuration, task, filter_name, metric, _budget(entry["budget"]))
    outcomes = section(entry, "questions")
    questions = np.array([int(question, 16) for question in outcomes], dtype=np.uint64)
    correct, weights = np.array(list(outcomes.values()), dtype=np.float64), _weights(entry, list(outcomes))
    order = np.argsort(questions)
    if not len(questions) or not np.isfinite(correct).all():
        raise ValueError("questions need a finite value each")
    stored = Outcomes(
        questions=questions[order], correct=correct[order], weights=None if weights is None else weights[order]
    )
    return key, Measurement(
        configuration=configuration,
        benchmark=_text(entry, "benchmark"),
        task=key.task,
        filter=key.filter,
        budget=key.budget,
        metric=key.metric,
        accuracies=(stored.mean,),
        metrics={},
        outcomes=stored,
        error=None,
        sparsity=_sparsity(entry["sparsity"]),
        higher_is_better=direction(metric, [_direction(entry.get("higher_is_better"))]),
    )


def _weights(entry: Mapping[str, object], questions: Sequence[str]) -> NDArray[np.float64] | None:
    if "weights" not in entry:
        return None
    given = section(entry, "weights")
    weights = np.array([given[question] for question in questions], dtype=np.float64)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise ValueError("weights must be sizes, not all of them 0")
    return weights


def _text(entry: Mapping[str, object], name: str) -> str:
    value = entry[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is not text")
    return value


def _budget(value: object) -> int | None:
    if value is None or isinstance(value, int):
        return value
    raise TypeError("budget is not a whole number")


def _sparsity(value: object) -> float | None:
    if value is None or isinstance(value, float | int):
        return value
    raise TypeError("sparsity is not a number")


def _direction(value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise TypeError("higher_is_better is not true, false or null")
