"""Check the cells of a sweep before one runs: how they generate, how their model is pruned, and repetitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import yaml
from transformers import PretrainedConfig

from lm_eval_pruned.config import PruneConfig, RunConfig, field_names
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.model_args import parse_model_args
from lm_eval_pruned.models.arguments import peek_config
from lm_eval_pruned.models.before_loading import (
    GENERATED_OPTIONS,
    Generation,
    Limits,
    check_aliases,
    check_generation,
    check_metadata,
    class_without_cache,
    context_of,
    count_samples,
    names_of_transformers,
)
from lm_eval_pruned.models.generated import check_options
from lm_eval_pruned.paths import tasks_folder
from lm_eval_pruned.pruning.checkpoint.resolve import resolve_pretrained
from lm_eval_pruned.pruning.fit import check_fits
from lm_eval_pruned.pruning.recipe import Recipe, count_to_drop
from lm_eval_pruned.reasoning.settings import BudgetSettings
from lm_eval_pruned.sweeps.cell import Cell
from lm_eval_pruned.sweeps.recipes import resolved

# Arguments of a run that change no text.
_WITHOUT_EFFECT = ("artifacts", "responses", "share_traces")
_CALIBRATION = ("calib", "calib_samples", "calib_seqlen", "calib_seed", "calib_tokens")


def check_cell(cell: Cell, recipe: Recipe) -> None:
    """Check a cell against the config of its model, where that can be read here.

    Raises:
        PrunedEvalError: the error is that of the run itself.
    """
    config = _config(cell.model, str(cell.model_args.get("revision") or "main"), cell.weights is not None)
    if config is not None:
        check_fits(recipe, config, dtype=str(cell.model_args.get("dtype", "auto")))
    _settings(cell)
    _check_metadata(cell)


def _check_metadata(cell: Cell) -> None:
    """Check what a cell asks of our tasks; the harness's own have metadata of their own."""
    tasks = task_kwargs(cell.task)
    if tasks:
        check_metadata(cell.metadata)
    options = {name: cell.metadata[name] for name in GENERATED_OPTIONS if name in cell.metadata}
    for task in tasks if options else ():
        check_options(_read_task(task)["dataset_path"], **options)


def refuse_repetitions(cells: Iterable[Cell]) -> None:
    """Refuse two cells that would give the same answers, which would count as evidence twice.

    Raises:
        ArgumentError: there are such cells; the message says what is different about them and changes nothing.
    """
    seen: dict[str, Cell] = {}
    for cell in cells:
        first = seen.setdefault(_effect(cell), cell)
        if first.id != cell.id:
            names = _differences(first, cell)
            raise ArgumentError(
                f"{first.label!r} and {cell.label!r} would give the same answers, as {' and '.join(names)} changes "
                f"nothing here: {_advice(names)}"
            )


def _advice(names: Sequence[str]) -> str:
    if names == ["seed"]:
        return "decoding is greedy, so give gen_kwargs: {temperature: 1.0}, or one seed"
    if names == ["alloc"]:
        return "give the method without an allocation a grid of its own"
    return "leave one of them out"


def _differences(first: Cell, second: Cell) -> list[str]:
    """Return the names of the settings in which two cells differ."""
    left, right = (_flat(cell.outcome_settings()) for cell in (first, second))
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))


def _flat(settings: Mapping[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in settings.items():
        flat |= value if isinstance(value, Mapping) else {name: value}
    return flat


def _effect(cell: Cell) -> str:
    """Describe what a cell answers, without the settings that change nothing."""
    ours = field_names(PruneConfig) | field_names(RunConfig)
    parsed = parse_model_args(cell.model_args, parent=cell.model_args.keys() - ours)
    run = {name: getattr(parsed.run, name) for name in field_names(RunConfig) if name not in _WITHOUT_EFFECT}
    others = {name: str(value) for name, value in parsed.parent.items() if name != "pretrained"}
    plain = {name: value for name, value in cell.outcome_settings().items() if name not in ("model_args", "gen_kwargs")}
    generations = [
        repr(generation.kwargs if settings is None else settings.effective())
        for generation, settings in zip(_generations(cell), _settings(cell), strict=True)
    ]
    return repr(
        (
            resolve_pretrained(cell.model),
            sorted(_pruning(cell, resolved(parsed.prune)).items()),
            *(sorted(one.items(), key=str) for one in (run, others, plain)),
            generations,
        )
    )


def _pruning(cell: Cell, recipe: Recipe) -> dict[str, object]:
    """Return the settings that decide which weights are removed."""
    config = _config(cell.model, str(cell.model_args.get("revision") or "main"), cell.weights is not None)
    blocks = None if config is None else getattr(config.get_text_config(), "num_hidden_layers", None)
    determining = recipe.determining()
    if recipe.drops_blocks and blocks:
        determining |= {"num_blocks": count_to_drop(recipe.config, blocks), "sparsity": None}
    if recipe.needs_calibration:
        determining |= {name: getattr(recipe.config, name) for name in _CALIBRATION}
    return determining


def _settings(cell: Cell) -> list[BudgetSettings | None]:
    """Check how each task of a cell generates."""
    check_aliases(cell.gen_kwargs)
    config = _config(cell.model, str(cell.model_args.get("revision") or "main"), cell.weights is not None)
    limits = Limits(
        context=context_of(config, cell.model_args, is_vllm=cell.backend == "pruned-vllm"),
        # Which kwargs vLLM knows, only vLLM can tell, and this machine may not have it.
        names=names_of_transformers() if cell.backend == "pruned-hf" else None,
        without_cache=class_without_cache(config) if cell.backend == "pruned-hf" else None,
    )
    return [check_generation(generation, limits) for generation in _generations(cell)]


def _generations(cell: Cell) -> list[Generation]:
    samples = count_samples(cell.metadata.get("num_samples", 1))
    tasks = task_kwargs(cell.task) or {cell.task: {}}
    return [Generation(name, {**kwargs, **cell.decoding}, samples) for name, kwargs in tasks.items()]


@cache
def task_kwargs(name: str) -> Mapping[str, Mapping[str, object]]:
    """Return the generation kwargs of each task in one of our tasks or groups; {} for the harness's own tasks.

    Example:
        >>> task_kwargs("tiny_tts_16")
        {'tiny_tts_16': {'thinking_token_budget': 16, 'max_gen_toks': 32, 'until': []}}
    """
    content = _read_task(name)
    if "thinking_token_budget" in content:
        budget = {"thinking_token_budget": content["thinking_token_budget"]}
        return {name: {**budget, **content.get("generation_kwargs", {})}}
    return {task: kwargs for member in content.get("task", ()) for task, kwargs in task_kwargs(member).items()}


def _read_task(name: str) -> dict[str, Any]:
    path = next(tasks_folder().rglob(f"{name}.yaml"), None)
    content: dict[str, Any] = {}
    while path is not None:
        # As in the harness, a file overrides what it includes, entry by entry and not within an entry.
        included = _TaskLoader(path.read_text(encoding="utf-8")).get_single_data()
        content = {**included, **content}
        path = path.parent / included["include"] if "include" in included else None
    return content


class _TaskLoader(yaml.SafeLoader):
    """Reads a task file without importing the functions that it names."""


_TaskLoader.add_constructor("!function", lambda loader, node: str(node.value))


@cache
def _config(pretrained: str, revision: str, is_offline: bool) -> PretrainedConfig | None:
    return peek_config(resolve_pretrained(pretrained), {"revision": revision, "local_files_only": is_offline})
