"""Measurements: the runs of one configuration on one task, merged over seeds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev

import numpy as np
from numpy.typing import NDArray

from lm_eval_pruned.results.records.configuration import Configuration
from lm_eval_pruned.results.records.divergence import Divergence
from lm_eval_pruned.results.records.finished import merged
from lm_eval_pruned.results.records.metrics import ACCURACIES, direction
from lm_eval_pruned.results.records.record import Record
from lm_eval_pruned.results.records.run_settings import Settings
from lm_eval_pruned.results.records.samples import Outcomes
from lm_eval_pruned.results.records.stopped import Stopped, merged_stopped
from lm_eval_pruned.results.records.task_result import TaskResult
from lm_eval_pruned.results.repeats import Seeded, distinct
from lm_eval_pruned.results.statistics.early import share_sequence
from lm_eval_pruned.results.statistics.intervals import Interval, mean_interval, reported_interval

# Level of the intervals of stopped runs is 1 - ALPHA.
ALPHA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one configuration reached on one task under one filter, merged over seeds.

    `configuration` includes how the task was asked; `accuracies` has one value per seed; `metrics` are means over
    seeds; `outcomes`, if every seed has them, are means over seeds per question; `error` is the standard error that a
    single run reported. `budget` is None for the area under a whole curve and for tasks without a budget.
    `higher_is_better` is None where neither the files nor the name of the metric say it. `questions` is the number that
    were asked, None if unknown. `repeats` counts the runs that are left out, since under another seed they gave the
    very responses of a run that is not. `divergence` is that of the newest run that has one. If a run was `stopped`
    early, outcomes are those of the questions that all seeds were asked, and no mean over them is that of the task.
    `is_group` if the questions are those of several tasks, which have measurements of their own.
    """

    configuration: Configuration
    benchmark: str
    task: str
    filter: str
    budget: int | None
    metric: str
    accuracies: tuple[float, ...]
    metrics: Mapping[str, float]
    outcomes: Outcomes | None
    error: float | None
    sparsity: float | None
    questions: int | None = None
    repeats: int = 0
    higher_is_better: bool | None = None
    shots: str = ""
    divergence: Divergence | None = None
    stopped: Stopped | None = None
    is_group: bool = False

    @property
    def accuracy(self) -> float:
        """Mean over seeds, of means over questions."""
        return fmean(self.accuracies)

    @property
    def std(self) -> float | None:
        """Population standard deviation over seeds, as in the paper; None for a single seed."""
        return pstdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval of the accuracy, clustered by question; None where nothing is known of its error.

        Of a stopped run, whose number of questions depends on its answers, it is a confidence sequence.
        """
        if self.stopped is not None:
            return None if self.outcomes is None else Interval(*share_sequence(self.outcomes.correct, alpha=ALPHA))
        if self.outcomes is not None:
            return mean_interval(self.outcomes.spread, bounded=False if self.outcomes.weights is not None else None)
        is_share = self.metric in ACCURACIES
        return reported_interval(self.accuracy, self.error, questions=self.questions, is_share=is_share)


@dataclass(frozen=True, slots=True)
class Key:
    """What merged runs have in common; `budget` is None for an area."""

    configuration: Configuration
    task: str
    filter: str
    metric: str
    budget: int | None


def measure(records: Sequence[Record], *, ignoring: Collection[str] = ()) -> dict[Key, Measurement]:
    """Merge runs, given oldest first, that differ only in their seeds; settings in `ignoring` may differ too.

    The later of two runs with the same seeds replaces the earlier one, and so does the later of two runs with the same
    responses: seeds that change nothing are one.
    """
    merged: dict[Key, dict[Settings, tuple[Record, TaskResult]]] = {}
    for record in records:
        for result in record.results:
            configuration = _configuration(record, result, ignoring)
            runs = merged.setdefault(Key(configuration, result.task, result.filter, result.metric, result.budget), {})
            seeds = record.seeds + result.seeds
            # Ordered by time: a run that replaces another moves to the end.
            runs.pop(seeds, None)
            runs[seeds] = (record, result)
    # One direction for all runs of a task, since they stand in one table.
    stated: dict[tuple[str, str], set[bool | None]] = {}
    for record in records:
        for result in record.results:
            stated.setdefault((result.task, result.metric), set()).add(result.higher_is_better)
    return {
        key: _merge(key, list(seeds.values()), direction(key.metric, stated[key.task, key.metric]))
        for key, seeds in merged.items()
    }


def setting_names(keys: Collection[Key]) -> set[str]:
    """Return the names of all settings that any of the configurations has."""
    return {name for key in keys for name, _ in key.configuration.settings}


def _configuration(record: Record, result: TaskResult, ignoring: Collection[str]) -> Configuration:
    shared = record.configuration
    values = {**dict(shared.settings), **dict(result.settings)}
    settings = tuple(sorted((name, value) for name, value in values.items() if name not in ignoring))
    return replace(shared, settings=settings)


def _merge(key: Key, runs: Sequence[tuple[Record, TaskResult]], higher_is_better: bool | None) -> Measurement:
    results = distinct([Seeded(record.seeds + result.seeds, result) for record, result in runs])
    newest, last = runs[-1]
    outcomes = [result.outcomes for result in results if result.outcomes is not None]
    stopped = merged_stopped([result.stopped for result in results])
    shared = [name for name in last.metrics if all(name in result.metrics for result in results)]
    return Measurement(
        configuration=key.configuration,
        benchmark=last.benchmark,
        task=key.task,
        filter=key.filter,
        budget=key.budget,
        metric=key.metric,
        accuracies=tuple(
            result.metrics[key.metric] if result.outcomes is None else result.outcomes.mean for result in results
        ),
        metrics={name: fmean(result.metrics[name] for result in results) for name in shared},
        outcomes=_mean(outcomes, shared=stopped is not None) if len(outcomes) == len(results) else None,
        error=last.errors.get(key.metric) if len(results) == 1 else None,
        sparsity=newest.sparsity,
        questions=last.questions,
        repeats=len(runs) - len(results),
        higher_is_better=higher_is_better,
        shots=last.shots,
        divergence=next((run.divergence for run, _ in reversed(runs) if run.divergence), None),
        stopped=stopped,
        is_group=last.is_group,
    )


def _mean(outcomes: Sequence[Outcomes], *, shared: bool) -> Outcomes:
    """Average the outcomes of each question over the seeds that asked it; `shared` keeps those that all asked."""
    if len(outcomes) == 1:
        return outcomes[0]
    questions, inverse = np.unique(np.concatenate([one.questions for one in outcomes]), return_inverse=True)
    seeds = np.bincount(inverse)
    keep = seeds == len(outcomes) if shared else seeds > 0
    weights = [one.weights for one in outcomes if one.weights is not None]

    def mean(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        sums = np.bincount(inverse, weights=np.concatenate(values))
        means: NDArray[np.float64] = (sums / seeds)[keep]
        return means

    return Outcomes(
        questions=questions[keep],
        correct=mean([one.correct for one in outcomes]),
        finished=merged([one.finished for one in outcomes]),
        weights=mean(weights) if len(weights) == len(outcomes) else None,
    )
