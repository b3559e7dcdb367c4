"""Area under the curve of accuracy against log2(thinking budget): one number per run, and one per question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lm_eval_pruned.results.measurement import Key, Measurement
from lm_eval_pruned.results.records.samples import Outcomes
from lm_eval_pruned.results.records.stopped import merged_stopped

# Prefix of the metric name of an area, before the metric of the curve.
AREA = "area of "


def with_areas(measurements: Mapping[Key, Measurement]) -> dict[Key, Measurement]:
    """Append, for each curve of at least two budgets, the area under it as a measurement of its own.

    area = integral of the accuracy over log2(budget), by trapezoids, divided by the width: the mean accuracy over the
    range of budgets. It is linear in each question's accuracies, so every question has an area.
    Lower is better for the area where it is for the metric.
    """
    curves: dict[Key, list[Measurement]] = {}
    for key, point in measurements.items():
        if point.budget:
            curves.setdefault(Key(key.configuration, point.benchmark, key.filter, key.metric, None), []).append(point)
    areas = {
        replace(key, metric=AREA + key.metric): area
        for key, points in curves.items()
        for area in _area(sorted(points, key=lambda point: point.budget or 0))
    }
    return {**measurements, **areas}


def area_weights(budgets: Sequence[int]) -> list[float]:
    """Return the weight of each point of a curve in the area under it; the weights add up to 1.

    Example:
        >>> area_weights([512, 1024, 4096])
        [0.16666666666666666, 0.5, 0.3333333333333333]
    """
    positions = np.log2(np.asarray(budgets, dtype=np.float64))
    widths = np.diff(positions)
    weights = (np.append(widths, 0.0) + np.append(0.0, widths)) / 2
    return [float(weight) for weight in weights / (positions[-1] - positions[0])]


def _area(points: Sequence[Measurement]) -> Iterator[Measurement]:
    """Yield the area under a curve if its points have distinct budgets and outcomes of the same questions."""
    outcomes = [point.outcomes for point in points if point.outcomes is not None]
    budgets = {point.budget for point in points}
    if len(points) < 2 or len(outcomes) < len(points) or len(budgets) < len(points):
        return
    questions = outcomes[0].questions
    if any(not np.array_equal(one.questions, questions) for one in outcomes):
        return
    weights = area_weights([point.budget or 0 for point in points])
    directions = {point.higher_is_better for point in points}
    seed_counts = {len(point.accuracies) for point in points}
    correct = np.asarray(weights) @ np.stack([one.correct for one in outcomes])
    area = Outcomes(questions=questions, correct=correct, weights=outcomes[0].weights)
    by_seed = zip(*(point.accuracies for point in points), strict=False)
    yield Measurement(
        configuration=points[0].configuration,
        benchmark=points[0].benchmark,
        task=points[0].benchmark,
        filter=points[0].filter,
        budget=None,
        metric=AREA + points[0].metric,
        accuracies=(
            tuple(float(np.dot(weights, accuracies)) for accuracies in by_seed)
            if len(seed_counts) == 1
            else (area.mean,)
        ),
        metrics={},
        outcomes=area,
        error=None,
        sparsity=points[-1].sparsity,
        questions=len(questions),
        repeats=min(point.repeats for point in points),
        higher_is_better=directions.pop() if len(directions) == 1 else None,
        shots=points[-1].shots,
        divergence=points[-1].divergence,
        stopped=merged_stopped([point.stopped for point in points]),
    )
