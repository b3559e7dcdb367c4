"""The judge of a cell that is stopped early: it compares every curve with the dense cell's after every round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.models.rounds import Decision, Rows
from lm_eval_pruned.results.area import area_weights
from lm_eval_pruned.results.comparison import Pair, differences, gains
from lm_eval_pruned.results.records.reading import read_records
from lm_eval_pruned.results.records.samples import Outcomes, samples_outcomes
from lm_eval_pruned.results.records.task_result import TaskResult
from lm_eval_pruned.results.statistics.early import Verdict, difference_sequence, judge, share_sequence
from lm_eval_pruned.results.statistics.paired import Floats
from lm_eval_pruned.sweeps.early import EarlyStop, task_curves


class EarlyJudge:
    """Says after every round which tasks need more questions; a verdict that is certain stays so."""

    def __init__(self, stop: EarlyStop) -> None:
        """Read the results of the dense cell.

        Raises:
            DataError: they cannot be read, or lack outcomes.
        """
        records, problems = read_records([stop.dense])
        self._rule = stop.rule
        self._dense = {result.task: result for record in records for result in record.results}
        if problems:
            raise DataError(f"the dense cell cannot be compared with: {problems[0]}")
        self._verdicts: dict[str, Verdict] = {}

    def __call__(self, rows: Rows) -> Decision:
        """Return which tasks need more questions, and the report for the results file on those asked so far."""
        pairs = {task: self._pair(task, of_task) for task, of_task in rows.items()}
        curves = task_curves(rows)
        ask: dict[str, int] = {}
        for name, tasks in curves.items():
            if self._verdicts.get(name, "undecided") == "undecided":
                self._verdicts[name], needed = judge(_lines([pairs[task] for task in tasks], tasks), self._rule)
                ask |= dict.fromkeys(tasks, needed) if self._verdicts[name] == "undecided" else {}
        entries = {
            task: self._entry(pairs[task], self._verdicts[name], self._dense[task].metric)
            for name, tasks in curves.items()
            for task in tasks
        }
        return Decision(ask, {"rule": asdict(self._rule), "tasks": entries})

    def _pair(self, task: str, rows: Sequence[Mapping[str, object]]) -> Pair:
        dense = self._dense[task]
        new = samples_outcomes(Path(task), rows, {dense.filter: dense.metric})[dense.filter]
        return Pair(new, _outcomes(dense), dense.higher_is_better, is_stopped=True)

    def _entry(self, pair: Pair, verdict: Verdict, metric: str) -> dict[str, object]:
        alpha = self._rule.alpha
        within = f" within {100 * self._rule.equivalence:g} points" if verdict == "equivalent" else ""
        return {
            "stopped_at": len(pair.new.questions),
            "of": len(pair.old.questions),
            "verdict": verdict + within,
            metric: [*share_sequence(pair.new.correct, alpha=alpha)],
            "difference": [*difference_sequence(differences(pair), alpha=alpha)],
        }


def _outcomes(result: TaskResult) -> Outcomes:
    if result.outcomes is None:
        raise DataError(f"the dense cell has no outcomes of {result.task}: delete its folder and run it again")
    return result.outcomes


def _lines(pairs: Sequence[Pair], tasks: Sequence[str]) -> list[Floats]:
    """Return the gains [questions] of each task, and last those of the area under the curve of several."""
    lines = [gains(pair) for pair in pairs]
    if len(lines) > 1:
        weights = area_weights([int(task.rpartition("_")[2]) for task in tasks])
        lines.append(np.asarray(weights) @ np.stack(lines))
    return lines
