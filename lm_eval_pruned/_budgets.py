"""Checks that our tasks meet a model that enforces their thinking budgets.

They run in every evaluation of the harness, so nothing but names and types is looked at before a task of ours is found.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping

from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.paths import our_tasks, tasks_folder


def check_named_model(model: object, tasks: Iterable[object], task_manager: object) -> None:
    """Check before a model is loaded that it enforces budgets, if it is given by its name and tasks of ours by theirs.

    Where the user has task folders, which may redefine a name, only `check_loaded_model` can tell.

    Raises:
        ArgumentError: it does not.
    """
    ours = our_tasks().intersection(name for name in tasks if isinstance(name, str))
    is_default = task_manager is None or getattr(task_manager, "include_path", None) == [str(tasks_folder())]
    if not (ours and is_default and isinstance(model, str)):
        return
    from lm_eval.api.registry import get_model
    from lm_eval.models import MODEL_MAPPING

    from lm_eval_pruned.models.budgeted import BudgetedLM
    from lm_eval_pruned.models.supported import not_enforced

    # The harness's own models are known without importing them: vLLM, for one, may not be installed.
    if model in MODEL_MAPPING or not issubclass(get_model(model), BudgetedLM):
        raise ArgumentError(not_enforced(ours, f"--model {model}"))


def check_loaded_model(model: object, tasks: Mapping[object, object]) -> None:
    """Check before anything is generated that a model enforces budgets, if one of the loaded tasks has a budget.

    Raises:
        ArgumentError: it does not.
    """
    # Without this module there is no task of ours.
    module = sys.modules.get("lm_eval_pruned.models.task")
    ours = [task.config.task for task in _leaves(tasks) if isinstance(task, module.BudgetedTask)] if module else []
    if not ours:
        return
    from lm_eval_pruned.models.budgeted import BudgetedLM
    from lm_eval_pruned.models.supported import not_enforced

    if not isinstance(model, BudgetedLM):
        raise ArgumentError(not_enforced(ours, f"the model {type(model).__name__}"))


def _leaves(tasks: object) -> Iterator[object]:
    """Yield every value of nested mappings: up to lm-eval 0.4.11 groups are mappings of their members."""
    for value in tasks.values() if isinstance(tasks, Mapping) else ():
        yield from _leaves(value) if isinstance(value, Mapping) else (value,)
