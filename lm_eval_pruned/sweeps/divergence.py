"""Divergence in a sweep: what pruning changed in a cell, along the responses of its dense cell."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from lm_eval_pruned.config import PruneConfig, field_names
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.files import MALFORMED
from lm_eval_pruned.sweeps.cell import Cell

DIVERGENCE_FILE, DIVERGENCE_LOG = "divergence.json", "divergence.txt"
# What comparing logits adds to the memory of the model, at most.
DIVERGENCE_BYTES = 1 << 30
# Arguments of a model that decide how `diverge` loads it, besides those of pruning.
_LOADING = ("pretrained", "dtype", "revision", "subfolder", "thinking", "artifacts")


def is_diverging(cell: Cell) -> bool:
    """Whether a cell gets a divergence: it asks for one, and is pruned."""
    return cell.diverge and is_pruned(cell)


def dense_cell(cell: Cell, cells: Iterable[Cell]) -> Cell:
    """Return the dense cell of the same model and task that shares most settings with a pruned one.

    Raises:
        ArgumentError: there is none.
    """
    candidates = [
        one
        for one in cells
        if not is_pruned(one) and (one.task, _loading(one.model_args)) == (cell.task, _loading(cell.model_args))
    ]
    if not candidates:
        raise ArgumentError(
            f"{cell.label!r} has diverge: true, and the sweep has no dense cell of this model on {cell.task} whose "
            "responses it is compared along: add a grid with methods: none"
        )
    return max(candidates, key=lambda one: _shared_settings(one, cell))


def diverge_arguments(cell: Cell, *, traces: Path, output: Path) -> list[str]:
    """Return the arguments of `lm-eval-pruned diverge` for a cell.

    Args:
        cell: a pruned cell.
        traces: folder with the results of its dense cell.
        output: folder for the divergence.
    """
    wanted = {*_LOADING, *field_names(PruneConfig)}
    given = {name: value for name, value in cell.model_args.items() if name in wanted and value is not None}
    device = cell.model_args.get("device") or ("cuda" if cell.resources.gpus else "cpu")
    trusts = str(cell.model_args.get("trust_remote_code", False)).lower() == "true"
    return [
        # With "=", since a value may begin with a dash.
        *(f"--{name}={value}" for name, value in given.items()),
        f"--device={device}",
        *(["--trust_remote_code"] if trusts else []),
        f"--output={output}",
        *("--traces", str(traces)),
    ]


def is_diverged(folder: Path) -> bool:
    """Whether the folder of a cell has its divergence."""
    try:
        return "kl" in json.loads((folder / DIVERGENCE_FILE).read_text(encoding="utf-8"))
    except (OSError, *MALFORMED):
        return False


def is_pruned(cell: Cell) -> bool:
    """Whether the model of a cell is pruned by its arguments: by a method, or by masks that are there already."""
    return str(cell.model_args.get("method") or "none") != "none" or cell.model_args.get("masks") is not None


def _loading(arguments: Mapping[str, object]) -> dict[str, str]:
    return {name: str(arguments[name]) for name in _LOADING if name in arguments and name != "artifacts"}


def _shared_settings(one: Cell, other: Cell) -> int:
    first, second = one.outcome_settings(), other.outcome_settings()
    same_model_args = sum(one.model_args.get(name) == value for name, value in other.model_args.items())
    return sum(first[name] == second[name] for name in first) + same_model_args
