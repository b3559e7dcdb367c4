"""A room imports only from rooms on its left and from the small files at the top; within a room nothing is circular."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import lm_eval_pruned

PACKAGE = Path(lm_eval_pruned.__file__).parent
ROOMS = ["divergence", "pruning", "planning", "reasoning", "grading", "models", "results", "sweeps", "commands"]
SMALL = {"errors", "registry", "config", "model_args", "paths", "files", "process_memory", "progress"}
# The bundled model: its training script writes text with the markers of a format, and `models` draws its problems.
OUTSIDE = {"assets"}


def imported_modules(path: Path) -> set[str]:
    """Every dotted name of the package that a file imports, and `package.name` for each name it imports from one."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.split(".")[0] == "lm_eval_pruned"}


def imported(path: Path) -> set[str]:
    known = {path.stem for path in PACKAGE.iterdir()}
    parts = [name.split(".") for name in imported_modules(path)]
    return {name[1] for name in parts if len(name) > 1 and name[1] in known}


def test_every_folder_is_a_room():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders == {*ROOMS, *OUTSIDE}


def test_rooms_import_to_their_left():
    for index, room in enumerate(ROOMS):
        # `run` starts the harness with explicit registration; no other room touches the start-up hook.
        special = {"commands": {"_autoload"}, "models": OUTSIDE}
        allowed = {*ROOMS[: index + 1], *SMALL} | special.get(room, set())
        for path in (PACKAGE / room).rglob("*.py"):
            assert imported(path) <= allowed, path


def test_small_files_import_no_room():
    for name in SMALL:
        assert imported(PACKAGE / f"{name}.py") <= SMALL


def test_grading_and_reasoning_do_not_know_each_other():
    for path in (PACKAGE / "grading").rglob("*.py"):
        assert imported(path) <= {"grading", "errors", "registry", "files"}, path
    for path in (PACKAGE / "reasoning").rglob("*.py"):
        assert imported(path) <= {"reasoning", *SMALL}, path


def test_results_do_not_know_how_runs_are_made():
    for path in (PACKAGE / "results").rglob("*.py"):
        assert imported(path) <= {"results", *SMALL}, path


@pytest.mark.parametrize("room", ROOMS)
def test_sub_rooms_of_a_room_import_one_another_one_way(room: str):
    """The folders and the files of a room have an order in which each imports only earlier ones."""
    places = {path.stem for path in (PACKAGE / room).iterdir() if path.suffix == ".py" or path.is_dir()}
    imports: dict[str, set[str]] = {}
    for path in (PACKAGE / room).rglob("*.py"):
        place = path.relative_to(PACKAGE / room).parts[0].removesuffix(".py")
        for name in imported_modules(path):
            parts = name.split(".")
            if parts[1:2] == [room] and len(parts) > 2 and parts[2] in places - {place}:
                imports.setdefault(place, set()).add(parts[2])
    # Raises CycleError, which names the places.
    TopologicalSorter(imports).prepare()


def test_importing_a_module_asks_for_no_module_of_posix_alone():
    for path in PACKAGE.rglob("*.py"):
        names = set()
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom):
                names.add(node.module)
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
        assert not names & {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios"}, path
