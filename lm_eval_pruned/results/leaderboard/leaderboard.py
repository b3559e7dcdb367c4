"""The leaderboard: one line for each configuration, task and budget, held against the dense run of the same model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple, TypedDict

from lm_eval_pruned.results.area import with_areas
from lm_eval_pruned.results.compare import Comparison, Pair, compare, is_comparable
from lm_eval_pruned.results.labels import distinctions
from lm_eval_pruned.results.leaderboard.published import Published
from lm_eval_pruned.results.measurement import Key, Measurement, measure
from lm_eval_pruned.results.records.record import ACCURACIES, Record
from lm_eval_pruned.results.records.settings import Settings
from lm_eval_pruned.results.statistics.bootstrap import bootstrap_interval

ALPHA = 0.05
# Half the width of a 95 % interval, in standard errors.
_Z = 1.959964
# Settings in which a dense run may differ from what is held against it.
_APART = ("backend", "limit")
_METRICS = ("thinking_tokens", "answer_tokens", "budget_hit", "answer_cut", "no_answer", "looping")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the table; None is what is not known, or makes no sense.

    `acc` is the mean of `metric` over seeds with its 95 % interval [low, high], clustered by question, and `std`, the
    population standard deviation over seeds. `difference` to the dense run with its interval; `p` and `p_holm`,
    corrected over the table; `detectable`, the least drop that would have been found. An area has no budget.
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


class Against(NamedTuple):
    """The dense measurement that one is held against, and the outcomes of both."""

    dense: Key
    pair: Pair


class Entry(NamedTuple):
    """A line, the measurement it shows (None of a published one), and what that is held against, if anything."""

    line: Line
    key: Key | None
    against: Against | None


def leaderboard(records: Sequence[Record], references: Iterable[Published] = ()) -> list[Line]:
    """Return the lines of all runs and areas, and the published ones of the same benchmarks and budgets.

    Sorted by benchmark, budget and model, the best first.
    """
    return [entry.line for entry in entries(records, references)]


def entries(records: Sequence[Record], references: Iterable[Published] = ()) -> list[Entry]:
    """Return the lines of the leaderboard, each with what it was made from."""
    measured = with_areas(measure(records))
    settings = distinctions(measured)
    held = _held_against(measured)
    found = compare([against.pair for against in held.values()], alpha=ALPHA, alternative="two-sided")
    comparisons = dict(zip(held, found, strict=True))
    own = [Entry(_line(one, settings[key], comparisons.get(key)), key, held.get(key)) for key, one in measured.items()]
    asked = {(_stem(entry.line.benchmark), entry.line.budget): entry.line for entry in own}
    published = [
        Entry(_published(one, asked[_stem(one.task), one.budget]), None, None)
        for one in references
        if (_stem(one.task), one.budget) in asked
    ]
    return sorted([*own, *published], key=lambda entry: _order(entry.line))


def _held_against(measured: Mapping[Key, Measurement]) -> dict[Key, Against]:
    """Find for each pruned measurement the dense one that was asked alike, if need be by another backend."""
    dense: dict[object, list[Key]] = {}
    for key in measured:
        if not key.configuration.pruning:
            dense.setdefault(_asked(key), []).append(key)
    held = {}
    for key, one in measured.items():
        if not key.configuration.pruning or one.outcomes is None:
            continue
        nearest = sorted(dense.get(_asked(key), ()), key=lambda other: _unlike(key, other))
        for other in nearest:
            outcomes = measured[other].outcomes
            if outcomes is not None and is_comparable(pair := Pair(one.outcomes, outcomes)):
                held[key] = Against(other, pair)
                break
    return held


def _asked(key: Key) -> object:
    return key.configuration.model, _without(key.configuration.settings), key.task, key.filter, key.metric, key.budget


def _without(settings: Settings) -> Settings:
    return tuple(setting for setting in settings if setting[0] not in _APART)


def _unlike(key: Key, other: Key) -> int:
    return len(set(key.configuration.settings) ^ set(other.configuration.settings))


def _line(found: Measurement, settings: str, comparison: Comparison | None) -> Line:
    low, high = _interval(found)
    return Line(
        model=found.configuration.model,
        run=found.configuration.label,
        benchmark=found.benchmark,
        task=found.task,
        budget=found.budget,
        filter=found.filter,
        metric=found.metric,
        acc=found.accuracy,
        low=low,
        high=high,
        std=found.std,
        seeds=len(found.accuracies),
        questions=None if found.outcomes is None else len(found.outcomes.questions),
        sparsity=found.sparsity,
        settings=settings,
        **_held(comparison),
        **{name: found.metrics.get(name) for name in _METRICS},  # type: ignore[arg-type]
    )


class _Held(TypedDict, total=False):
    difference: float
    difference_low: float
    difference_high: float
    p: float
    p_holm: float
    detectable: float | None


def _held(found: Comparison | None) -> _Held:
    if found is None:
        return {}
    return {
        "difference": found.difference,
        "difference_low": found.low,
        "difference_high": found.high,
        "p": found.p,
        "p_holm": found.p_holm,
        "detectable": found.detectable,
    }


def _interval(found: Measurement) -> tuple[float | None, float | None]:
    if found.outcomes is not None:
        low, high = bootstrap_interval(found.outcomes.correct).tolist()
        return low, high
    if found.error is not None:
        low, high = found.accuracy - _Z * found.error, found.accuracy + _Z * found.error
        # A share has none beyond 0 and 1; other metrics, such as perplexities, are not shares.
        return (max(low, 0.0), min(high, 1.0)) if found.metric in ACCURACIES else (low, high)
    return None, None


def _published(one: Published, like: Line) -> Line:
    return Line(
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
    """Return the name a benchmark has in print: ours end in _tts."""
    return benchmark.removesuffix("_tts")


def _order(line: Line) -> tuple[object, ...]:
    # In print a model goes without the name of its owner.
    model = PurePosixPath(line.model).name.lower()
    budget = float("inf") if line.budget is None else line.budget
    return line.benchmark, budget, line.filter, model, -line.acc, line.run, line.source, line.settings
