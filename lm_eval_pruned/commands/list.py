"""`lm-eval-pruned list`: list methods, allocations, thinking formats, grading modes and tasks, one per line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from lm_eval_pruned.commands import Subparsers
from lm_eval_pruned.errors import MissingPackageError

if TYPE_CHECKING:
    from lm_eval_pruned.pruning.allocations import Allocation
    from lm_eval_pruned.pruning.methods import Method


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand `list`, which takes no arguments."""
    parser = subparsers.add_parser("list", help="methods, allocations, thinking formats and tasks", allow_abbrev=False)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Print the lists."""
    del args
    print("\n".join(lines()))
    return 0


def lines() -> Iterator[str]:
    """Yield the lines of all lists, each after its heading."""
    from lm_eval_pruned.grading.modes import MODES
    from lm_eval_pruned.pruning.allocations import ALLOCATIONS
    from lm_eval_pruned.pruning.methods import METHODS
    from lm_eval_pruned.reasoning.formats import FORMATS

    yield "methods (method=)"
    yield from _rows({"none": "The dense model through the very same path."})
    yield from _rows(_summaries(METHODS))
    yield "allocations (alloc=)"
    yield from _rows(_summaries(ALLOCATIONS))
    yield "thinking formats (thinking=)"
    yield from _rows({"auto": "Read from the chat template."})
    yield from _rows({name: thinking.summary for name, thinking in FORMATS.items()})
    yield "grading modes (grade --mode)"
    yield from _rows({name: mode.summary for name, mode in MODES.items()})
    yield "tasks (--tasks)"
    yield from _rows(task_summaries())


def task_summaries() -> dict[str, str]:
    """Return each task group with its title and members."""
    import yaml

    from lm_eval_pruned.paths import tasks_folder

    groups = {}
    for path in [*sorted(tasks_folder().rglob("*_tts.yaml")), tasks_folder() / "tts.yaml"]:
        group = yaml.safe_load(path.read_text(encoding="utf-8"))
        groups[group["group"]] = f"{group['group_alias']}: {', '.join(group['task'])}"
    return groups


def _summaries(registry: Mapping[str, Method] | Mapping[str, Allocation]) -> dict[str, str]:
    """Return the summary of every entry; for a plug-in that cannot be loaded, the error."""
    summaries = {}
    for name in registry:
        try:
            summaries[name] = registry[name].summary
        except MissingPackageError as error:
            summaries[name] = f"({error})"
    return summaries


def _rows(entries: dict[str, str]) -> Iterator[str]:
    for name, text in entries.items():
        yield f"  {name:<17}{text}"
