"""References: the run that each measurement is compared with, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from lm_eval_pruned.results.area import AREA
from lm_eval_pruned.results.comparison import Pair, is_comparable
from lm_eval_pruned.results.differences import changes, contradictions, in_words
from lm_eval_pruned.results.labels import find_run, run_labels
from lm_eval_pruned.results.measurement import Key, Measurement
from lm_eval_pruned.results.records.configuration import ZEROS, Configuration
from lm_eval_pruned.results.records.identity import RUN
from lm_eval_pruned.results.records.metrics import RATE

# Settings in which a reference may differ from the runs compared with it.
MAY_DIFFER = ("backend", "limit")
_NO_OUTCOMES = (
    "no outcome of a question is known: the samples were not logged (lm_eval --log_samples), were not read, or have no "
    "number per question in this metric"
)
_HAS_RATE = f"a perplexity is not a mean over documents: its {RATE} is, and is compared instead"
_NO_MEAN = (
    "the metric of a group is compared if it is the mean over the questions of all its tasks, and all their samples "
    "were logged (lm_eval --log_samples)"
)
_UNKNOWN = (
    "it is not known whether this model was pruned: its path does not exist here, or has no pruning_report.json of its "
    "weights: choose the run to compare with by --against LABEL"
)


class Reference(NamedTuple):
    """The measurement that another one is compared with, and the outcomes of both."""

    dense: Key
    pair: Pair


class References(NamedTuple):
    """References by measurement, and for each measurement that lacks one, a sentence that says why."""

    found: dict[Key, Reference]
    missing: dict[Key, str]


def dense_references(measured: Mapping[Key, Measurement]) -> References:
    """Find the unpruned run of the same model for each pruned one that was asked alike.

    If need be it has another backend or limit. An unpruned run is compared with nothing. A run that
    may have been pruned or not is unpruned next to one that was made from its model.
    """
    by_point = _by_point(measured)
    found: dict[Key, Reference] = {}
    missing: dict[Key, str] = {}
    for key in measured:
        if not key.configuration.pruning:
            continue
        if key.configuration.is_unknown:
            missing[key] = why_no_outcomes(measured, key) or _UNKNOWN
            continue
        candidates = [other for other in by_point[_point(key)] if _is_unpruned(key, other)]
        candidates.sort(key=lambda other: len(changes(_asked(key), _asked(other))))
        alike = [other for other in candidates if not _obstacles(key.configuration, other.configuration)]
        # A digest says more than a name.
        alike = [other for other in alike if _has_equal_weights(key.configuration, other.configuration)] or alike
        if not alike:
            missing[key] = why_no_outcomes(measured, key) or _nearest(key, candidates)
        elif several := [
            text for other in alike for text in contradictions(alike[0].configuration, other.configuration)
        ]:
            missing[key] = f"unpruned runs of different models have this name: {in_words(several)}"
        else:
            _hold(measured, key, alike, found, missing)
    # What others are compared with needs no reference itself.
    for reference in found.values():
        missing.pop(reference.dense, None)
    return References(found, missing)


def chosen_references(measured: Mapping[Key, Measurement], label: str) -> References:
    """Compare every measurement with the run that has this label, whatever their models and settings.

    Raises:
        UnknownNameError, ArgumentError: no run has it, or several have.
    """
    by_point = {_point(key): key for key in find_run(measured, label)}
    found: dict[Key, Reference] = {}
    missing: dict[Key, str] = {}
    for key in measured:
        other = by_point.get(_point(key))
        if other is None:
            missing[key] = f"the run {label!r} has no result of this task, budget, filter and metric"
        elif other != key:
            _hold(measured, key, [other], found, missing)
    return References(found, missing)


def _hold(
    measured: Mapping[Key, Measurement],
    key: Key,
    others: Sequence[Key],
    found: dict[Key, Reference],
    missing: dict[Key, str],
) -> None:
    """Store the first of `others` that has a question in common with `key`, or why none has."""
    for other in others:
        new, old = measured[key].outcomes, measured[other].outcomes
        if new is None or old is None or _budgets(measured, key) != _budgets(measured, other):
            continue
        is_stopped = any(measured[one].stopped is not None for one in (key, other))
        pair = Pair(new, old, measured[key].higher_is_better, is_stopped, measured[key].is_group)
        if is_comparable(pair):
            found[key] = Reference(other, pair)
            return
    nearest = others[0]
    name = run_labels([nearest])[nearest]
    if why := why_no_outcomes(measured, key):
        missing[key] = why
    elif measured[nearest].outcomes is None:
        missing[key] = f"of {name}, {_NO_OUTCOMES}"
    elif _budgets(measured, key) != _budgets(measured, nearest):
        missing[key] = f"the curve of {name} has other budgets"
    else:
        missing[key] = f"no question in common with {name}"


def _point(key: Key) -> tuple[object, ...]:
    return key.task, key.filter, key.metric, key.budget


def _by_point(measured: Mapping[Key, Measurement]) -> dict[object, list[Key]]:
    points: dict[object, list[Key]] = {}
    for key in measured:
        points.setdefault(_point(key), []).append(key)
    return points


def _asked(key: Key) -> Configuration:
    """Return the model, and how it was asked, without its pruning."""
    one = key.configuration
    return Configuration(model=one.model, pruning=(), settings=one.settings, evidence=one.evidence)


def _is_unpruned(key: Key, other: Key) -> bool:
    """Whether `other` is dense, or has the zeros that the pruning of `key` began with."""
    old, new = dict(other.configuration.pruning), dict(key.configuration.pruning)
    if not old or other.configuration.is_unknown:
        return True
    return ZEROS in old and ZEROS not in new and _has_equal_weights(key.configuration, other.configuration)


def _has_equal_weights(one: Configuration, other: Configuration) -> bool:
    weights = dict(one.evidence).get("weights")
    return weights is not None and weights == dict(other.evidence).get("weights")


def _obstacles(wanted: Configuration, other: Configuration) -> list[str]:
    """Return what forbids to hold a pruned run (`wanted`) against a dense one (`other`)."""
    has_equal_weights = _has_equal_weights(wanted, other)
    ignoring = {*MAY_DIFFER, *dict(wanted.pruning), *dict(other.pruning), *(("model",) if has_equal_weights else ())}
    asked = changes(wanted, other, ignoring=ignoring)
    if RUN in dict(wanted.evidence) | dict(other.evidence):
        asked.append("a model that its file does not name")
    elif wanted.model.startswith(".") and not has_equal_weights and not contradictions(wanted, other):
        asked.append(f"the relative path {wanted.model}, which may be another model: its weights have no digest")
    return asked


def why_no_outcomes(measured: Mapping[Key, Measurement], key: Key) -> str:
    """Return the reason why a measurement has no outcomes of its questions; "" where it has."""
    if measured[key].outcomes is not None:
        return ""
    if measured[key].is_group:
        return _NO_MEAN
    rate = measured.get(replace(key, metric=RATE))
    return _NO_OUTCOMES if rate is None or rate.outcomes is None else _HAS_RATE


def _nearest(key: Key, candidates: Sequence[Key]) -> str:
    if not candidates:
        return "no run of an unpruned model has this task, budget, filter and metric"
    obstacles = _obstacles(key.configuration, candidates[0].configuration)
    return f"the nearest unpruned run, {run_labels(candidates[:1])[candidates[0]]}, has {in_words(obstacles)}"


def _budgets(measured: Mapping[Key, Measurement], key: Key) -> frozenset[int | None]:
    """Return the budgets of the curve that an area belongs to; empty for anything else."""
    if not key.metric.startswith(AREA):
        return frozenset()
    curve = (key.configuration, key.task, key.filter, key.metric.removeprefix(AREA))
    return frozenset(
        other.budget
        for other, one in measured.items()
        if (other.configuration, one.benchmark, other.filter, other.metric) == curve
    )
