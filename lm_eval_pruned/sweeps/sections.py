"""Read and check the sections of a sweep file (YAML); errors name the section."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import yaml

from lm_eval_pruned.config import field_names
from lm_eval_pruned.errors import DataError, unknown_name
from lm_eval_pruned.sweeps.cell import Cell, Resources

# Lists whose product is a grid, and the name of one of their values.
AXES: Mapping[str, str] = {
    "models": "model",
    "methods": "method",
    "allocations": "allocation",
    "sparsities": "sparsity",
    "num_blocks": "num_blocks",
    "blocks": "blocks",
    "tasks": "task",
    "seeds": "seed",
}
RESOURCES = field_names(Resources)
# Settings with one value per cell.
_SETTINGS = (field_names(Cell) - {"task", "seed", "variant", "resources"}) | RESOURCES
MAPPINGS = ("model_args", "gen_kwargs", "metadata")
SECTIONS = ("description", "diverge", "defaults", "grids", "variants", "overrides")
_BOOLEANS = ("apply_chat_template", "diverge")
_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("backend", "system_instruction"), (str,)),
    **dict.fromkeys(MAPPINGS, (dict,)),
    "batch_size": (str, int),
    **dict.fromkeys(_BOOLEANS, (bool,)),
    "num_fewshot": (int,),
    **dict.fromkeys(("limit", "weights", *RESOURCES), (int, float)),
}

SweepSettings: TypeAlias = Mapping[str, object]


def read_yaml(path: Path) -> Mapping[str, object]:
    """Read a YAML file; raises DataError if it is not YAML, or not a mapping."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise DataError(f"{path} cannot be read as YAML: it is nested too deeply") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    return as_mapping(str(path), content)


def read_settings(where: str, given: object, *, axes: bool = False) -> SweepSettings:
    """Return the settings of a section; raises DataError for a wrong type, UnknownNameError for an unknown name."""
    content = as_mapping(where, given or {})
    check_names(f"setting in {where}", content, [*_SETTINGS, *(AXES if axes else ())])
    for name, value in content.items():
        if name in _TYPES and (
            not isinstance(value, _TYPES[name]) or (isinstance(value, bool) and name not in _BOOLEANS)
        ):
            raise DataError(f"{where}: {name}: {value!r} is not {' or '.join(kind.__name__ for kind in _TYPES[name])}")
    return content


def merge(first: SweepSettings, second: SweepSettings) -> dict[str, object]:
    """Return both settings; the second ones win, in nested mappings entry by entry."""
    mappings = {
        name: {**as_mapping(name, first.get(name, {})), **as_mapping(name, second[name])}
        for name in MAPPINGS
        if name in second
    }
    return {**first, **second, **mappings}


def read_axis(name: str, given: object) -> list[object]:
    """Return the values of an axis; raises DataError if there are none, or if one is a list or mapping.

    Only `blocks` may have lists: [[16, 17], 3] is 16+17 and 3.
    """
    values = [_joined(value) if name == "blocks" else value for value in as_list(given)]
    if not values or any(isinstance(value, dict | list) for value in values):
        raise DataError(f"{name}: {given!r} is neither a value nor a list of values")
    return values


def _joined(blocks: object) -> object:
    return "+".join(map(str, blocks)) if isinstance(blocks, list) else blocks


def read_seed(given: object) -> int | None:
    """Return a whole number or None; raises DataError for anything else."""
    if given is None or (isinstance(given, int) and not isinstance(given, bool)):
        return given
    raise DataError(f"seeds: {given!r} is not a whole number")


def as_list(given: object) -> list[object]:
    """Return a list unchanged, a single value as a list of one, None as an empty list."""
    if given is None:
        return []
    return given if isinstance(given, list) else [given]


def as_mapping(where: str, given: object) -> dict[str, object]:
    """Return a mapping unchanged; raises DataError for anything else."""
    if not isinstance(given, dict):
        raise DataError(f"{where} is not a mapping of names to values: {given!r:.80}")
    return given


def check_names(what: str, given: Iterable[object], allowed: Iterable[str]) -> None:
    """Raise UnknownNameError, with the nearest name, for the first of `given` that is not allowed."""
    names = list(allowed)
    for name in given:
        if name not in names:
            raise unknown_name(what, name, names)
