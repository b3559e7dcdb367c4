"""Build the leaderboard: one line per configuration, task and budget, compared with the dense run or a chosen one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import NamedTuple, TypedDict

from lm_eval_pruned.results.area import AREA, with_areas
from lm_eval_pruned.results.comparison import Comparison, compare
from lm_eval_pruned.results.divergence.summary import MEANING
from lm_eval_pruned.results.flips import flips
from lm_eval_pruned.results.labels import distinctions, run_labels
from lm_eval_pruned.results.leaderboard.published import Published
from lm_eval_pruned.results.measurement import Key, Measurement, measure
from lm_eval_pruned.results.records.divergence import Divergence
from lm_eval_pruned.results.records.record import Record
from lm_eval_pruned.results.reference import Reference, chosen_references, dense_references
from lm_eval_pruned.results.repeats import note

ALPHA = 0.05
_METRICS = (
    *("thinking_tokens", "answer_tokens", "budget_hit", "thinking_eos", "answer_cut", "no_answer"),
    *("looping", "loop_onset", "rep-2", "rep-3"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderboardLine:
    """One line of the table; None stands for what is unknown or does not apply.

    `acc` is the mean of `metric` over seeds with its 95 % interval [low, high], clustered by question, and `std`, the
    population standard deviation over seeds. `difference` to the run whose label is `reference`, with its interval; it
    is for the better if its sign is that of `higher_is_better`. `p` and `p_holm`, corrected over the table;
    `detectable`, the smallest change for the worse that the test would have found. An area has no budget.
    `harmful`, `beneficial` and `churn` are shares of the questions: worse, better, and wrong in another way.
    `finished` is the share of responses that were not cut and give an answer, `acc_finished` the accuracy among them.
    `kl` and `survive` say how much pruning changed along the dense model's responses, all tokens of them, with
    intervals; `divergence` says what they do not. `note` names runs and samples that are not repetitions, since they
    gave the same responses. `thinking_eos` is None where thinking has no markers. `limit` and `shots`, the numbers of
    questions and of few-shot examples asked for, are "" where the file does not say. A line that a sweep stopped after
    `stopped_at` of `stopped_of` questions has no mean of the metric and no difference, but confidence sequences as
    intervals, and a `verdict` on its curve. `why_not_compared` is empty for lines that are compared, and
    for those that others are compared with.
    """

    model: str
    run: str
    benchmark: str
    task: str
    budget: int | None
    filter: str
    metric: str
    higher_is_better: bool | None
    acc: float | None
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
    thinking_eos: float | None = None
    answer_cut: float | None = None
    no_answer: float | None = None
    looping: float | None = None
    harmful: float | None = None
    beneficial: float | None = None
    churn: float | None = None
    finished: float | None = None
    acc_finished: float | None = None
    loop_onset: float | None = None
    rep_2: float | None = None
    rep_3: float | None = None
    sparsity: float | None = None
    kl: float | None = None
    kl_low: float | None = None
    kl_high: float | None = None
    survive: float | None = None
    survive_low: float | None = None
    survive_high: float | None = None
    divergence: str = ""
    limit: str = ""
    shots: str = ""
    settings: str = ""
    source: str = ""
    reference: str = ""
    why_not_compared: str = ""
    stopped_at: int | None = None
    stopped_of: int | None = None
    verdict: str = ""
    note: str = ""


class Entry(NamedTuple):
    """A line, the measurement it shows (None for a published figure), and what that is compared with, if anything."""

    line: LeaderboardLine
    key: Key | None
    reference: Reference | None


def build_entries(
    records: Sequence[Record], published: Iterable[Published] = (), *, against: str | None = None
) -> list[Entry]:
    """Return the entries of all runs and areas, and published figures for the same benchmarks and budgets.

    Sorted by benchmark, budget and model, then the best first in the metric's own direction.

    Args:
        records: the runs.
        published: figures to show next to them.
        against: label of the run that all others are compared with; None for the dense run of each model.

    Raises:
        UnknownNameError, ArgumentError: no run, or several, have the label `against`.
    """
    measured = with_areas(measure(records))
    settings = distinctions(measured)
    labels = run_labels(measured)
    found, missing = dense_references(measured) if against is None else chosen_references(measured, against)
    compared = compare([reference.pair for reference in found.values()], alpha=ALPHA, alternative="two-sided")
    comparisons = dict(zip(found, compared, strict=True))
    lines = {key: _line(one, settings[key], comparisons.get(key)) for key, one in measured.items()}
    for key, reference in found.items():
        # Whole curves have no answer of their own.
        has_flips = not key.metric.startswith(AREA) and not reference.pair.is_stopped
        changed = flips(reference.pair)._asdict() if has_flips else {}
        lines[key] = replace(lines[key], reference=labels[reference.dense], **changed)
    for key, why in missing.items():
        lines[key] = replace(lines[key], why_not_compared=why)
    own = [Entry(line, key, found.get(key)) for key, line in lines.items()]
    asked = {(_stem(entry.line.benchmark), entry.line.budget): entry.line for entry in own}
    theirs = [
        Entry(_published(one, asked[_stem(one.task), one.budget]), None, None)
        for one in published
        if (_stem(one.task), one.budget) in asked
    ]
    return sorted([*own, *theirs], key=lambda entry: _order(entry.line))


def _line(measurement: Measurement, settings: str, comparison: Comparison | None) -> LeaderboardLine:
    low, high = measurement.interval or (None, None)
    stopped = measurement.stopped
    complete = measurement.outcomes.finished if measurement.outcomes and not stopped else None
    return LeaderboardLine(
        model=measurement.configuration.model,
        run=measurement.configuration.label,
        benchmark=measurement.benchmark,
        task=measurement.task,
        budget=measurement.budget,
        filter=measurement.filter,
        metric=measurement.metric,
        higher_is_better=measurement.higher_is_better,
        acc=None if stopped else measurement.accuracy,
        low=low,
        high=high,
        std=None if stopped else measurement.std,
        seeds=len(measurement.accuracies),
        questions=measurement.questions if measurement.outcomes is None else len(measurement.outcomes.questions),
        finished=complete.share if complete else None,
        acc_finished=complete.acc if complete else None,
        sparsity=measurement.sparsity,
        limit=dict(measurement.configuration.settings).get("limit", ""),
        shots=measurement.shots,
        settings=settings,
        note=note(measurement.repeats, measurement.configuration.settings),
        stopped_at=stopped.asked if stopped else None,
        stopped_of=stopped.of if stopped else None,
        verdict=stopped.verdict if stopped else "",
        **_comparison_fields(comparison, is_stopped=stopped is not None),
        **_metrics(measurement),  # type: ignore[arg-type]
        **_divergence_fields(measurement.divergence),
    )


def _metrics(measurement: Measurement) -> dict[str, float | None]:
    # Without markers the end of the text is how every thought ends, and its share says nothing.
    is_unmarked = dict(measurement.configuration.settings).get("thinking") == "none"
    names = [name for name in _METRICS if not (is_unmarked and name == "thinking_eos")]
    return {name.replace("-", "_"): measurement.metrics.get(name) for name in names}


class _ComparisonFields(TypedDict, total=False):
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p: float
    p_holm: float
    detectable: float | None


def _comparison_fields(comparison: Comparison | None, *, is_stopped: bool) -> _ComparisonFields:
    if comparison is None:
        return {}
    return {
        "difference": None if is_stopped else comparison.difference,
        "difference_low": comparison.low,
        "difference_high": comparison.high,
        "p": comparison.p,
        "p_holm": comparison.p_holm,
        "detectable": comparison.detectable,
    }


class _DivergenceFields(TypedDict, total=False):
    kl: float
    kl_low: float | None
    kl_high: float | None
    survive: float
    survive_low: float | None
    survive_high: float | None
    divergence: str


def _divergence_fields(divergence: Divergence | None) -> _DivergenceFields:
    if divergence is None:
        return {}
    return {
        "kl": divergence.kl,
        "kl_low": divergence.kl_low,
        "kl_high": divergence.kl_high,
        "survive": divergence.survive,
        "survive_low": divergence.survive_low,
        "survive_high": divergence.survive_high,
        "divergence": "; ".join(filter(None, [MEANING, divergence.approximation])),
    }


def _published(one: Published, like: LeaderboardLine) -> LeaderboardLine:
    return LeaderboardLine(
        model=one.model,
        run=one.label,
        benchmark=like.benchmark,
        task=like.task,
        budget=one.budget,
        filter=like.filter,
        metric=like.metric,
        higher_is_better=like.higher_is_better,
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
    # Without a direction none is the best.
    sign = {True: -1, False: 1, None: 0}[line.higher_is_better]
    score = line.acc if line.acc is not None else ((line.low or 0.0) + (line.high or 0.0)) / 2
    return (
        line.benchmark,
        budget,
        line.filter,
        line.metric,
        model,
        sign * score,
        line.run,
        line.source,
        line.settings,
    )
