"""Read a sweep file: expand its grids into cells, and check every cell before the first one runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from itertools import product
from pathlib import Path

from lm_eval_pruned.config import PruneConfig, RunConfig, field_names
from lm_eval_pruned.errors import ArgumentError, DataError, MissingDataError, PrunedEvalError, unknown_name
from lm_eval_pruned.model_args import parse_model_args
from lm_eval_pruned.paths import configs_folder, is_there, our_tasks
from lm_eval_pruned.pruning.checkpoint.resolve import resolve_pretrained
from lm_eval_pruned.sweeps.cell import Cell, Resources
from lm_eval_pruned.sweeps.checks import check_cell, refuse_repetitions
from lm_eval_pruned.sweeps.divergence import dense_cell, is_diverging
from lm_eval_pruned.sweeps.recipes import resolved
from lm_eval_pruned.sweeps.sections import (
    AXES,
    MAPPINGS,
    RESOURCES,
    SECTIONS,
    SweepSettings,
    as_list,
    as_mapping,
    check_names,
    merge,
    read_axis,
    read_seed,
    read_settings,
    read_yaml,
)

BACKENDS = ("pruned-hf", "pruned-vllm")

_ARGUMENTS = {
    "model": "pretrained",
    "method": "method",
    "allocation": "alloc",
    "sparsity": "sparsity",
    "num_blocks": "num_blocks",
    "blocks": "blocks",
}

# More cells are a mistake in the file: each can take hours.
MAX_CELLS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """Settings for the cells whose axes all have one of the values in `match`."""

    match: Mapping[str, Sequence[object]]
    settings: SweepSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A sweep file: its cells without duplicates, in the order of the file."""

    path: Path
    description: str
    cells: tuple[Cell, ...]


def read_sweep(path: Path) -> Sweep:
    """Read and check a sweep file.

    Raises:
        DataError: it is not YAML of the form that docs/sweeps.md describes.
        PrunedEvalError: a cell is invalid; the message names it, and the nearest valid name.
    """
    content = read_yaml(path)
    try:
        check_names("section", content, SECTIONS)
        grids = [as_mapping(f"grids[{index}]", grid) for index, grid in enumerate(as_list(content.get("grids")))]
        if not grids:
            raise DataError("it spans no cells: give grids, a list of mappings such as {methods: [wanda]}")
        common = {"diverge": content["diverge"]} if "diverge" in content else {}
        defaults = {
            **read_settings("the file", common),
            **read_settings("defaults", content.get("defaults"), axes=True),
        }
        named = as_mapping("variants", content.get("variants") or {})
        variants = {str(name): read_settings(f"variants: {name}", given) for name, given in named.items()}
        overrides = [_override(index, given) for index, given in enumerate(as_list(content.get("overrides")))]
        spanned = [
            cell
            for index, grid in enumerate(grids)
            for cell in _span(defaults, read_settings(f"grids[{index}]", grid, axes=True), variants)
        ]
        _check_used(overrides, [axes for axes, _ in spanned])
        cells = {cell.id: cell for cell in (_cell(axes, settings, overrides) for axes, settings in spanned)}
        refuse_repetitions(cells.values())
        for cell in filter(is_diverging, cells.values()):
            dense_cell(cell, cells.values())
    except PrunedEvalError as error:
        raise type(error)(f"{path}: {error}") from None
    return Sweep(path=path, description=str(content.get("description", "")), cells=tuple(cells.values()))


def find_config(given: Path) -> Path:
    """Return the path of a sweep file, given as such or as the name of a sweep that ships with the package.

    Raises:
        MissingDataError: there is no such file or name.

    Example:
        >>> find_config(Path("demo")).name
        'demo.yaml'
    """
    shipped = {path.stem: path for path in sorted((configs_folder() / "sweeps").glob("*.yaml"))}
    if is_there(given) and given.is_file():
        return given
    if str(given) not in shipped:
        raise MissingDataError(f"there is no file {given}: give a .yaml, or one of {', '.join(shipped)}")
    return shipped[str(given)]


def _span(
    defaults: SweepSettings, grid: SweepSettings, variants: Mapping[str, SweepSettings]
) -> Iterator[tuple[dict[str, object], dict[str, object]]]:
    """Yield (axes, settings) of each cell of a grid."""
    given = merge(defaults, grid)
    if "models" not in given or "tasks" not in given:
        raise DataError("a grid needs models and tasks: give them in it or in defaults")
    lists = {AXES[name]: read_axis(name, given.pop(name)) for name in AXES if name in given}
    count = 1
    for values in lists.values():
        count *= len(values)
    if count * max(1, len(variants)) > MAX_CELLS:
        raise DataError(f"a grid spans more than {MAX_CELLS} cells")
    named: list[tuple[str | None, SweepSettings]] = [*variants.items()]
    for variant, own in named or [(None, {})]:
        for members in product(*lists.values()):
            yield {**dict(zip(lists, members, strict=True)), "variant": variant}, merge(given, own)


def _cell(axes: Mapping[str, object], settings: SweepSettings, overrides: Sequence[Override]) -> Cell:
    """Make and check a cell; an error names the cell."""
    for override in overrides:
        if _matches(override, axes):
            settings = merge(settings, override.settings)
    pruning = {_ARGUMENTS[name]: value for name, value in axes.items() if name in _ARGUMENTS}
    values = {name: value for name, value in settings.items() if name not in RESOURCES}
    cell = Cell(
        **{  # type: ignore[arg-type]
            "backend": BACKENDS[0],
            **{name: {} for name in MAPPINGS},
            **values,
            "batch_size": str(settings.get("batch_size", 1)),
            "model_args": {**as_mapping("model_args", settings.get("model_args", {})), **pruning},
        },
        task=str(axes["task"]),
        seed=read_seed(axes.get("seed")),
        variant=None if axes["variant"] is None else str(axes["variant"]),
        resources=Resources(**{name: float(settings[name]) for name in RESOURCES if name in settings}),  # type: ignore[arg-type]
    )
    try:
        _check(cell)
    except PrunedEvalError as error:
        raise type(error)(f"{cell.label}: {error}") from None
    return cell


def _check(cell: Cell) -> None:
    if cell.backend not in BACKENDS:
        raise unknown_name("backend", cell.backend, BACKENDS)
    ours = field_names(PruneConfig) | field_names(RunConfig)
    theirs = cell.model_args.keys() - ours
    accepted = _accepted(cell.backend, cell.model, frozenset(theirs)) if theirs else ()
    recipe = resolved(parse_model_args(cell.model_args, parent=accepted).prune)
    resolve_pretrained(cell.model)
    if cell.task not in our_tasks() and cell.task not in _all_tasks():
        raise unknown_name("task", cell.task, our_tasks())
    for field in fields(Resources):
        value = getattr(cell.resources, field.name)
        if value is not None and not 0 <= value < float("inf"):
            raise ArgumentError(f"{field.name}={value}: give 0 or more")
    check_cell(cell, recipe)


@cache
def _all_tasks() -> frozenset[str]:
    # Only where needed: indexing the harness's own tasks takes seconds.
    from lm_eval.tasks import TaskManager

    return frozenset(TaskManager().all_tasks)


@cache
def _accepted(backend: str, pretrained: str, given: frozenset[str]) -> frozenset[str]:
    """Return those of `given` that the harness's model class accepts besides our arguments."""
    if backend == "pruned-vllm":
        # Only vLLM knows its engine arguments, and the machine that starts a sweep may not have it installed.
        return given
    from lm_eval.models.huggingface import HFLM

    from lm_eval_pruned.models.arguments import accepted_arguments

    return frozenset(accepted_arguments(HFLM, resolve_pretrained(pretrained), given))


def _override(index: int, given: object) -> Override:
    where = f"overrides[{index}]"
    content = as_mapping(where, given)
    check_names(f"key of {where}", content, ("match", "set"))
    match = as_mapping(f"{where}: match", content.get("match"))
    check_names(f"axis of {where}", match, (*AXES.values(), "variant"))
    return Override(
        match={name: as_list(values) for name, values in match.items()},
        settings=read_settings(f"{where}: set", content.get("set")),
    )


def _matches(override: Override, axes: Mapping[str, object]) -> bool:
    return all(axes.get(name) in values for name, values in override.match.items())


def _check_used(overrides: Sequence[Override], spanned: Sequence[Mapping[str, object]]) -> None:
    """Refuse an override that matches nothing, which usually means a misspelt value."""
    for index, override in enumerate(overrides):
        for name, values in override.match.items():
            known = {str(axes[name]): axes[name] for axes in spanned if axes.get(name) is not None}
            for value in values:
                if value not in known.values():
                    raise unknown_name(f"{name} in overrides[{index}]", value, known)
        if not any(_matches(override, axes) for axes in spanned):
            raise DataError(f"overrides[{index}] matches no cell: {dict(override.match)}")
