"""The area below a curve of accuracy against the thinking budget: one number a run, and one a question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lm_eval_pruned.results.measurement import Key, Measurement
from lm_eval_pruned.results.records.samples import Outcomes

# Before the name of the metric whose curve an area lies below.
AREA = "area of "


def with_areas(measurements: Mapping[Key, Measurement]) -> dict[Key, Measurement]:
    """Add, for each curve of at least two budgets, the area below it as a measurement of its own, behind its points.

    area = integral of the accuracy over log2(budget), by trapezoids, divided by the width: the mean accuracy over the
    budgets' range. It is linear in each question's accuracies, so every question has an area.
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
    """Return the weight of each point of a curve in the area below it; they add up to 1.

    Example:
        >>> area_weights([512, 1024, 4096])
        [0.16666666666666666, 0.5, 0.3333333333333333]
    """
    places = np.log2(np.asarray(budgets, dtype=np.float64))
    widths = np.diff(places)
    weights = (np.append(widths, 0.0) + np.append(0.0, widths)) / 2
    return [float(weight) for weight in weights / (places[-1] - places[0])]


def _area(points: Sequence[Measurement]) -> Iterator[Measurement]:
    """Yield the area below a curve if every point knows the outcomes of the same questions, at a budget of its own."""
    known = [point.outcomes for point in points if point.outcomes is not None]
    budgets = {point.budget for point in points}
    if len(points) < 2 or len(known) < len(points) or len(budgets) < len(points):
        return
    first = known[0]
    if any(not np.array_equal(one.questions, first.questions) for one in known):
        return
    weights = area_weights([point.budget or 0 for point in points])
    seeds = {len(point.accuracies) for point in points}
    correct = np.asarray(weights) @ np.stack([one.correct for one in known])
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
            if len(seeds) == 1
            else (float(correct.mean()),)
        ),
        metrics={},
        outcomes=Outcomes(questions=first.questions, correct=correct),
        error=None,
        sparsity=points[-1].sparsity,
    )
