"""Check a call of the harness's `simple_evaluate` before it loads the model: it loads the tasks first, once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager
from lm_eval.utils import simple_parse_args_string

from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.models.before_loading import (
    CACHE_REQUESTS,
    USE_CACHE,
    Generation,
    Limits,
    check_aliases,
    check_generation,
    warn_of_seeds,
)

# Methods by which versions of the harness load tasks: `load` since 0.4.12, the others before.
_LOADERS = ("load", "load_task_or_group", "load_config")
_SEEDS = ("random_seed", "numpy_random_seed", "torch_random_seed")


@contextmanager
def checked_run(arguments: Mapping[str, Any], defaults: Mapping[str, object]) -> Iterator[dict[str, Any]]:
    """Check the arguments of `simple_evaluate`, and yield those to call it with.

    Args:
        arguments: all of its arguments by name; the model is one of ours.
        defaults: the default of each.

    Raises:
        PrunedEvalError: an argument of the model, a generation kwarg, a budget or a cache is refused.
    """
    if arguments["use_cache"] is not None:
        raise ArgumentError(USE_CACHE)
    if (limit := arguments.get("limit")) is not None and limit <= 0:
        raise ArgumentError(f"limit={limit} asks no question: give a number above 0, or leave it out for all questions")
    model_args = _as_mapping(arguments["model_args"])
    limits = _limits(arguments, model_args)
    gen_kwargs = _as_mapping(arguments["gen_kwargs"])
    check_aliases(gen_kwargs)
    manager = arguments["task_manager"] or TaskManager(metadata={**model_args, **(arguments["metadata"] or {})})
    # Some tasks draw from the global generators while they load: seeded as the harness is about to do.
    random.seed(arguments["random_seed"])
    np.random.seed(arguments["numpy_random_seed"])
    if arguments["torch_random_seed"] is not None:
        torch.manual_seed(arguments["torch_random_seed"])
    with _loading_once(manager):
        generations = [
            Generation(
                name,
                {**(task.get_config("generation_kwargs") or {}), **gen_kwargs},
                arguments.get("repeats") or task.get_config("repeats") or 1,
            )
            for name, task in _load(manager, arguments["tasks"]).items()
            if task.get_config("output_type") == "generate_until"
        ]
        settings = [check_generation(generation, limits) for generation in generations]
        if generations and arguments["cache_requests"] and not arguments["rewrite_requests_cache"]:
            raise ArgumentError(CACHE_REQUESTS)
        is_given = any(arguments[name] != defaults[name] for name in _SEEDS)
        warn_of_seeds([one for one in settings if one is not None], is_given=is_given)
        yield {**arguments, "task_manager": manager}


def _limits(arguments: Mapping[str, Any], model_args: Mapping[str, Any]) -> Limits:
    model = arguments["model"]
    if not isinstance(model, str):
        return Limits(context=int(model.max_length), names=model.generator_names())
    if "pretrained" not in model_args:
        raise ArgumentError("pretrained is missing in --model_args: give a hub id, a folder, or tiny-reasoner")
    given = {name: arguments[name] for name in ("batch_size", "max_batch_size", "device")}
    limits: Limits = get_model(model).limits(
        **model_args, **{name: value for name, value in given.items() if value is not None}
    )
    return limits


def _as_mapping(given: str | Mapping[str, Any] | None) -> dict[str, Any]:
    return simple_parse_args_string(given) if isinstance(given, str) else dict(given or {})


def _load(manager: TaskManager, tasks: object) -> dict[str, Any]:
    """Load tasks as the harness does, and return each by its name."""
    if not tasks:
        # An error of the harness.
        return {}
    if hasattr(manager, "load"):
        loaded: dict[str, Any] = manager.load(tasks)["tasks"]
        return loaded
    from lm_eval.tasks import get_task_dict

    return dict(_leaves(get_task_dict(tasks, manager)))


def _leaves(tree: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield str(name), value


@contextmanager
def _loading_once(manager: TaskManager) -> Iterator[None]:
    """Let the second call of each loader, with the same tasks, return what the first one has loaded."""
    names = [name for name in _LOADERS if hasattr(manager, name)]
    for name in names:
        # Patch: docs/harness-hook.md.
        setattr(manager, name, _once(getattr(manager, name)))
    try:
        yield
    finally:
        for name in names:
            vars(manager).pop(name, None)


def _once(load: Callable[..., object]) -> Callable[..., object]:
    loaded: dict[str, object] = {}

    def once(*args: object, **kwargs: object) -> object:
        key = repr((args, kwargs))
        if key not in loaded:
            loaded[key] = load(*args, **kwargs)
            return loaded[key]
        return loaded.pop(key)

    return once
