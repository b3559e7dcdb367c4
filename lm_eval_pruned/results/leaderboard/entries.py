"""Build the leaderboard: one line per configuration, task and budget, compared with the dense run of the same model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple, TypedDict

from lm_eval_pruned.results.area import with_areas
from lm_eval_pruned.results.comparison import Comparison, Pair, compare, is_comparable
from lm_eval_pruned.results.labels import distinctions
from lm_eval_pruned.results.leaderboard.published import Published
from lm_eval_pruned.results.measurement import Key, Measurement, measure
from lm_eval_pruned.results.records.record import ACCURACIES, Record
from lm_eval_pruned.results.records.run_settings import Settings
from lm_eval_pruned.results.statistics.bootstrap import bootstrap_interval

ALPHA = 0.05
# Half the width of a 95 % interval, in standard errors.
_Z = 1.959964
# Settings in which a dense run may differ from the runs compared with it.
_MAY_DIFFER = ("backend", "limit")
_METRICS = ("thinking_tokens", "answer_tokens", "budget_hit", "answer_cut", "no_answer", "looping")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderboardLine:
    """One line of the table; None stands for what is unknown or does not apply.

    `acc` is the mean of `metric` over seeds with its 95 % interval [low, high], clustered by question, and `std`, the
    population standard deviation over seeds. `difference` to the dense run with its interval; `p` and `p_holm`,
    corrected over the table; `detectable`, the smallest drop the test would have measurement. An area has no budget.
    """

    model: str
    run: str
    benchmark: str
    task: str
    budget: int | None
    filter: str
    metric: str
    acc: float
    low: float | None = None
    high: float | None = None
    std: float | None = None
    seeds: int | None = None
    questions: int | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    detectable: float | None = None
    thinking_tokens: float | None = None
    answer_tokens: float | None = None
    budget_hit: float | None = None
    answer_cut: float | None = None
    no_answer: float | None = None
    looping: float | None = None
    sparsity: float | None = None
    settings: str = ""
    source: str = ""


class Reference(NamedTuple):
    """The dense measurement that a pruned one is compared with, and the outcomes of both."""

    dense: Key
    pair: Pair


class Entry(NamedTuple):
    """A line, the measurement it shows (None for a published figure), and what that is compared with, if anything."""

    line: LeaderboardLine
    key: Key | None
    reference: Reference | None


def build_entries(records: Sequence[Record], published: Iterable[Published] = ()) -> list[Entry]:
    """Return the entries of all runs and areas, and published figures for the same benchmarks and budgets.

    Sorted by benchmark, budget and model, then by descending accuracy.
    """
    measured = with_areas(measure(records))
    settings = distinctions(measured)
    references = _references(measured)
    compared = compare([reference.pair for reference in references.values()], alpha=ALPHA, alternative="two-sided")
    comparisons = dict(zip(references, compared, strict=True))
    own = [
        Entry(_line(one, settings[key], comparisons.get(key)), key, references.get(key))
        for key, one in measured.items()
    ]
    asked = {(_stem(entry.line.benchmark), entry.line.budget): entry.line for entry in own}
    theirs = [
        Entry(_published(one, asked[_stem(one.task), one.budget]), None, None)
        for one in published
        if (_stem(one.task), one.budget) in asked
    ]
    return sorted([*own, *theirs], key=lambda entry: _order(entry.line))


def _references(measured: Mapping[Key, Measurement]) -> dict[Key, Reference]:
    """Find the dense measurement of each pruned one that was asked alike, if need be with another backend or limit."""
    dense: dict[object, list[Key]] = {}
    for key in measured:
        if not key.configuration.pruning:
            dense.setdefault(_asked(key), []).append(key)
    references = {}
    for key, one in measured.items():
        if not key.configuration.pruning or one.outcomes is None:
            continue
        for other in sorted(dense.get(_asked(key), ()), key=lambda other: _unlike(key, other)):
            outcomes = measured[other].outcomes
            if outcomes is not None and is_comparable(pair := Pair(one.outcomes, outcomes)):
                references[key] = Reference(other, pair)
                break
    return references


def _asked(key: Key) -> object:
    return key.configuration.model, _without(key.configuration.settings), key.task, key.filter, key.metric, key.budget


def _without(settings: Settings) -> Settings:
    return tuple(setting for setting in settings if setting[0] not in _MAY_DIFFER)


def _unlike(key: Key, other: Key) -> int:
    return len(set(key.configuration.settings) ^ set(other.configuration.settings))


def _line(measurement: Measurement, settings: str, comparison: Comparison | None) -> LeaderboardLine:
    low, high = _interval(measurement)
    return LeaderboardLine(
        model=measurement.configuration.model,
        run=measurement.configuration.label,
        benchmark=measurement.benchmark,
        task=measurement.task,
        budget=measurement.budget,
        filter=measurement.filter,
        metric=measurement.metric,
        acc=measurement.accuracy,
        low=low,
        high=high,
        std=measurement.std,
        seeds=len(measurement.accuracies),
        questions=measurement.questions if measurement.outcomes is None else len(measurement.outcomes.questions),
        sparsity=measurement.sparsity,
        settings=settings,
        **_comparison_fields(comparison),
        **{name: measurement.metrics.get(name) for name in _METRICS},  # type: ignore[arg-type]
    )


class _ComparisonFields(TypedDict, total=False):
    difference: float
    difference_low: float
    difference_high: float
    p: float
    p_holm: float
    detectable: float | None


def _comparison_fields(comparison: Comparison | None) -> _ComparisonFields:
    if comparison is None:
        return {}
    return {
        "difference": comparison.difference,
        "difference_low": comparison.low,
        "difference_high": comparison.high,
        "p": comparison.p,
        "p_holm": comparison.p_holm,
        "detectable": comparison.detectable,
    }


def _interval(measurement: Measurement) -> tuple[float | None, float | None]:
    if measurement.outcomes is not None:
        low, high = bootstrap_interval(measurement.outcomes.correct).tolist()
        return low, high
    if measurement.error is not None:
        low, high = measurement.accuracy - _Z * measurement.error, measurement.accuracy + _Z * measurement.error
        # An accuracy lies between 0 and 1; other metrics, such as perplexities, may not.
        return (max(low, 0.0), min(high, 1.0)) if measurement.metric in ACCURACIES else (low, high)
    return None, None


def _published(one: Published, like: LeaderboardLine) -> LeaderboardLine:
    return LeaderboardLine(
        model=one.model,
        run=one.label,
        benchmark=like.benchmark,
        task=like.task,
        budget=one.budget,
        filter=like.filter,
        metric=like.metric,
        acc=one.acc,
        std=one.std,
        source=one.source,
    )


def _stem(benchmark: str) -> str:
    """Return the usual name of a benchmark: names of ours end in _tts."""
    return benchmark.removesuffix("_tts")


def _order(line: LeaderboardLine) -> tuple[object, ...]:
    # Published tables name a model without its owner.
    model = PurePosixPath(line.model).name.lower()
    budget = float("inf") if line.budget is None else line.budget
    return line.benchmark, budget, line.filter, model, -line.acc, line.run, line.source, line.settings
