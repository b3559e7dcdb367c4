"""Register our models and tasks with the harness, and report a user's mistake in one line.

Where this patches classes of the harness, docs/harness-hook.md says why, and from which release on it need not.
"""

from __future__ import annotations

import functools
import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lm_eval_pruned._budgets import check_loaded_model, check_named_model
from lm_eval_pruned.errors import PrunedEvalError, error_line, unknown_name
from lm_eval_pruned.paths import tasks_folder

# The same names and targets as the entry points of pyproject.toml, which released harnesses do not read.
MODELS = {
    "pruned-hf": "lm_eval_pruned.models.hf:PrunedHFLM",
    "pruned-vllm": "lm_eval_pruned.models.vllm:PrunedVLLM",
}

_logger = logging.getLogger(__name__)

# How the harness names unknown tasks: a list, and since 0.5 the first of them.
_MISSING_TASKS = re.compile(r"Tasks not found: (.*)|Spec '(.*)' is not a registered task.*", re.DOTALL)

# How it names an unknown model.
_MISSING_MODEL = re.compile(
    r"Attempted to load model '(.*)', but no model for this name found! .*names: (.*)", re.DOTALL
)

# Task names of the TaskManager built last, to suggest names for a misspelt task: building another takes seconds.
_known_tasks: list[str] = []


def register_models() -> None:
    """Add our models to the harness's registry by name, without importing them; existing names are left alone."""
    from lm_eval.api.registry import model_registry

    for name, target in MODELS.items():
        if name not in model_registry:
            model_registry.register(name, target=target)


def add_task_folder() -> None:
    """Add our tasks to every TaskManager that has the default tasks; the user's include_path overrides both."""
    from lm_eval.tasks import TaskManager

    folder = str(tasks_folder())

    def extend(original: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(original)
        # Checked here, where a changed harness costs one warning, and not at a call, where it would cost the run.
        if not {"include_path", "include_defaults"} <= set(signature.parameters) or not hasattr(
            TaskManager, "all_tasks"
        ):
            raise NotImplementedError(f"this version's TaskManager{signature} takes no include_path")

        def initialize(*args: object, **kwargs: object) -> None:
            call = signature.bind(*args, **kwargs)
            call.apply_defaults()
            if call.arguments["include_defaults"]:
                call.arguments["include_path"] = include_paths(folder, call.arguments["include_path"])
            original(*call.args, **call.kwargs)
            _known_tasks[:] = call.arguments["self"].all_tasks

        return initialize

    # Patch: docs/harness-hook.md.
    _wrap_once(TaskManager, "__init__", extend)


def check_evaluations() -> None:
    """Make evaluations check what can be checked before weights are loaded, and that budgets of ours are enforced.

    A run of our models is checked whole; a task of ours is refused under any other model.
    """
    from lm_eval import evaluator

    def check_run(original: Callable[..., object]) -> Callable[..., object]:
        signature = _signature(original, "model", "model_args", "tasks", "task_manager", "gen_kwargs", "metadata")
        defaults = {name: parameter.default for name, parameter in signature.parameters.items()}

        def simple_evaluate(*args: object, **kwargs: object) -> object:
            call = signature.bind(*args, **kwargs)
            call.apply_defaults()
            given = call.arguments
            if not _is_ours(given["model"]):
                check_named_model(given["model"], given["tasks"] or (), given["task_manager"])
                return original(*args, **kwargs)
            # Imports PyTorch, which other models may do without.
            from lm_eval_pruned.models.run_check import checked_run

            with checked_run(given, defaults) as arguments:
                return original(**arguments)

        return simple_evaluate

    def check_model(original: Callable[..., object]) -> Callable[..., object]:
        signature = _signature(original, "lm", "task_dict")

        def evaluate(*args: object, **kwargs: object) -> object:
            given = signature.bind(*args, **kwargs).arguments
            if {"lm", "task_dict"} <= given.keys():
                check_loaded_model(given["lm"], given["task_dict"])
            return original(*args, **kwargs)

        return evaluate

    # Patches: docs/harness-hook.md.
    _wrap_once(evaluator, "simple_evaluate", check_run)
    _wrap_once(evaluator, "evaluate", check_model)


def _signature(function: Callable[..., object], *names: str) -> inspect.Signature:
    signature = inspect.signature(function)
    if not {*names} <= signature.parameters.keys():
        raise NotImplementedError(f"this version's evaluator has no {', '.join(names)} in {signature}")
    return signature


def report_errors() -> None:
    """Make the harness's command report a user's mistake in one line, with exit code 2, instead of a traceback."""
    from lm_eval._cli.harness import HarnessCLI

    def extend(original: Callable[..., None]) -> Callable[..., None]:
        def execute(*args: object, **kwargs: object) -> None:
            # Patch (docs/harness-hook.md): the command configures only the harness's logger, so ours propagates to it.
            logging.getLogger("lm_eval_pruned").parent = logging.getLogger("lm_eval")
            try:
                original(*args, **kwargs)
            except (PrunedEvalError, ValueError, KeyError) as error:
                message = _mistake(error)
                if message is None:
                    raise
                _logger.debug("%s", message, exc_info=True)
                sys.stderr.write(error_line("lm_eval", message))
                sys.exit(2)

        return execute

    # Patch: docs/harness-hook.md.
    _wrap_once(HarnessCLI, "execute", extend)


def include_paths(folder: str, given: str | Path | Iterable[str | Path] | None) -> list[str]:
    """Put our task folder before the user's, since the harness lets later folders override earlier ones.

    Example:
        >>> include_paths("ours", "mine")
        ['ours', 'mine']
    """
    match given:
        case None | "":
            return [folder]
        case str() | Path():
            theirs = [str(given)]
        case _:
            theirs = [str(path) for path in given]
    # If a folder is indexed twice, the harness warns that each of its tasks overrides itself.
    return theirs if Path(folder).resolve() in {Path(path).resolve() for path in theirs} else [folder, *theirs]


def missing_tasks_message(missing: Iterable[str], known: Sequence[str]) -> str:
    """Name the unknown --tasks, each with the nearest existing names.

    Example:
        >>> missing_tasks_message(["tiny_tss", "x"], ["gsm8k", "tiny_tts"])
        "unknown --tasks 'tiny_tss' (did you mean 'tiny_tts'?), 'x'. All names: lm_eval ls tasks"
    """
    described = []
    for name in missing:
        nearest = " or ".join(repr(near) for near in get_close_matches(name, known))
        described.append(f"{name!r} (did you mean {nearest}?)" if nearest else repr(name))
    return f"unknown --tasks {', '.join(described)}. All names: lm_eval ls tasks"


def _is_ours(model: object) -> bool:
    """Whether a model, given to the harness by name or as an object, is one of ours; nothing is imported."""
    if isinstance(model, str):
        return model in MODELS
    module = sys.modules.get("lm_eval_pruned.models.budgeted")
    return module is not None and isinstance(model, module.BudgetedLM)


def _mistake(error: Exception) -> str | None:
    if isinstance(error, PrunedEvalError):
        return str(error)
    # The text of a KeyError is the representation of its argument.
    text = str(next(iter(error.args), ""))
    if model := _MISSING_MODEL.fullmatch(text):
        return str(unknown_name("--model", model[1], model[2].split(", ")))
    missing = _MISSING_TASKS.fullmatch(text)
    return missing_tasks_message((missing[1] or missing[2]).split(", "), _known_tasks) if missing else None


def _wrap_once(owner: object, name: str, extend: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = getattr(owner, name)
    if not hasattr(original, "lm_eval_pruned_original"):
        wrapped = functools.wraps(original)(extend(original))
        wrapped.lm_eval_pruned_original = original  # type: ignore[attr-defined]
        setattr(owner, name, wrapped)
