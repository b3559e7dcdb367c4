"""Early stopping in a sweep: which cells may be stopped, by which rule, and compared with which dense cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lm_eval_pruned.config import PruneConfig, field_names
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.results.records.configuration import TTS
from lm_eval_pruned.results.statistics.early import StoppingRule
from lm_eval_pruned.sweeps.cell import Cell
from lm_eval_pruned.sweeps.checks import task_kwargs
from lm_eval_pruned.sweeps.divergence import is_pruned


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStop:
    """How a cell is stopped: by this rule, compared with the results of its dense cell in the folder `dense`."""

    rule: StoppingRule
    dense: Path


def can_stop(cell: Cell) -> bool:
    """Whether a cell may be stopped: a pruned one whose rounds together ask what a whole run asks.

    That takes a response store, which only tasks with a budget use, and no few-shot examples, which the harness draws
    for one question after the other.
    """
    has_store = str(cell.model_args.get("responses", "on")) != "off"
    return is_pruned(cell) and bool(task_kwargs(cell.task)) and has_store and not cell.num_fewshot


def dense_twin(cell: Cell, cells: Iterable[Cell]) -> Cell:
    """Return the dense cell that is asked exactly as a pruned one.

    Raises:
        ArgumentError: there is none.
    """
    wanted = _asked(cell)
    twin = next((one for one in cells if not is_pruned(one) and _asked(one) == wanted), None)
    if twin is None:
        raise ArgumentError(
            f"--stop early: the sweep has no dense cell that is asked as {cell.label!r} is: add a grid with methods: "
            "none and otherwise the same settings, seeds among them, or leave out --stop early"
        )
    return twin


def stopping_rule(cells: Sequence[Cell], equivalence: float) -> StoppingRule:
    """Return the rule of a sweep, whose levels are split over its comparisons."""
    curves = [
        tasks
        for cell in cells
        if is_pruned(cell)
        for tasks in task_curves(list(task_kwargs(cell.task)) or [cell.task]).values()
    ]
    # A curve has a line for its area in the leaderboard too.
    lines = sum(len(tasks) + (len(tasks) > 1) for tasks in curves)
    return StoppingRule(equivalence=equivalence, lines=max(1, lines), curves=max(1, len(curves)))


def task_curves(tasks: Iterable[str]) -> dict[str, list[str]]:
    """Group tasks that ask the same questions under several budgets; the budgets rise.

    Example:
        >>> task_curves(["tiny_tts_32", "tiny_tts_16", "aime24"])
        {'tiny_tts': ['tiny_tts_16', 'tiny_tts_32'], 'aime24': ['aime24']}
    """
    curves: dict[str, dict[int, str]] = {}
    for task in tasks:
        named = TTS.fullmatch(task)
        curves.setdefault(named[1] if named else task, {})[int(named[2]) if named else 0] = task
    return {name: [ones[budget] for budget in sorted(ones)] for name, ones in curves.items()}


def _asked(cell: Cell) -> Mapping[str, object]:
    """Return what decides the answers of a cell, besides its pruning."""
    pruning = field_names(PruneConfig)
    arguments = {name: str(value) for name, value in cell.model_args.items() if name not in pruning}
    return {**cell.outcome_settings(), "model_args": arguments}
