"""Read all results files of lm_eval, Inspect and lighteval in and below folders, and collect what could not be read."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from lm_eval_pruned.errors import DataError, MissingDataError, MissingPackageError
from lm_eval_pruned.results.records.answered import Answered
from lm_eval_pruned.results.records.inspect_log import read_inspect_log
from lm_eval_pruned.results.records.inspect_samples import inspect_answers, is_inspect_log
from lm_eval_pruned.results.records.lighteval import is_lighteval, read_lighteval
from lm_eval_pruned.results.records.lighteval_details import lighteval_answers
from lm_eval_pruned.results.records.record import NotResultsError, Record, read_record

# The names that results files and logs have, and samples files, where the user gives none.
_NAME = re.compile(r"results(_.*)?\.json|.*\.eval")
_SAMPLES_PREFIX = "samples_"
# How a JSON object begins, and how a results file does. Up to 0.4.2 it could have any name.
_OBJECT = re.compile(rb"(\xef\xbb\xbf)?\s*\{")
_RESULTS_FIRST = re.compile(rb'(\xef\xbb\xbf)?\s*\{\s*"results"\s*:\s*\{')
_HEAD_BYTES = 256
# Besides "results", a results file has one of these.
_MARKS = (b'"versions"', b'"configs"', b'"config"', b"_stderr", b',none"', b'"n-shot"', b'"config_general"')
# Folders with thousands of files, none of them results.
_NOT_SEARCHED = frozenset((".git", ".venv", "node_modules", "__pycache__"))


class Records(NamedTuple):
    """Runs, oldest first, and a sentence for each file or task that was skipped."""

    records: list[Record]
    problems: list[str]


class Candidate(NamedTuple):
    """A file that looks like a results file, and whether it is an error if it is not one."""

    path: Path
    is_meant: bool


def read_records(places: Sequence[Path]) -> Records:
    """Read all results files in and below `places`; one that cannot be read is skipped and added to the problems.

    In folders, a JSON file of another kind is passed over in silence, unless it has the name of a results file.

    Raises:
        MissingDataError: a path does not exist, or there is no results file in any.
        DataError: none of the files can be read.
    """
    records, problems = [], []
    for path, is_meant in find_results(places):
        try:
            records.append(read_run(path))
        except NotResultsError as problem:
            if is_meant:
                problems.append(str(problem))
        except (DataError, MissingPackageError) as problem:
            problems.append(str(problem))
        else:
            problems += records[-1].problems
    if not records and problems:
        raise DataError(f"none of the {len(problems)} results files can be read, the first: {problems[0]}")
    if not records:
        raise _no_results(places)
    return Records(sorted(records, key=lambda record: record.date), problems)


def read_run(path: Path) -> Record:
    """Read one results file of lm_eval or lighteval, or one log of Inspect.

    Raises:
        NotResultsError: it is JSON of another kind.
        DataError: it cannot be read, or no task in it has a result.
        MissingPackageError: the package that reads it is not installed.
    """
    if path.suffix == ".parquet":
        raise NotResultsError(f"{path} holds details: give the results_*.json of lighteval, or the folder of both")
    match _tool(path):
        case "inspect":
            return read_inspect_log(path)
        case "lighteval":
            return read_lighteval(path)
    return read_record(path)


def read_answers(path: Path, task: str, *, filter_name: str, shots: str, metric: str) -> Iterator[Answered] | None:
    """Return the questions of one result in a file of Inspect or lighteval; None for a file of lm_eval.

    Raises:
        DataError: the file, or what belongs to it, has changed since it was read, and cannot be read any more.
    """
    match _tool(path):
        case "inspect":
            return inspect_answers(path, filter_name)
        case "lighteval":
            return lighteval_answers(path, task, shots, metric)
    return None


def is_of_lm_eval(path: Path) -> bool:
    """Whether a file that `read_run` has read is of lm_eval.

    Raises:
        DataError: it cannot be read any more.
    """
    return _tool(path) == "lm_eval"


def find_results(places: Sequence[Path]) -> list[Candidate]:
    """Return the files in and below folders that look like results files, and those given, without duplicates.

    Raises:
        MissingDataError: a path does not exist, or there is no results file.
    """
    files: dict[Path, Candidate] = {}
    for place in places:
        if not place.exists():
            raise MissingDataError(f"there is no {place}: give folders with results of lm_eval, Inspect or lighteval")
        found = _search(place) if place.is_dir() else [Candidate(place, is_meant=True)]
        for one in found:
            # A file of a cache of the hub is a link: only its own name, not its target's, tells its samples.
            files.setdefault(one.path.resolve(), one)
    if not files:
        raise _no_results(places)
    return sorted(files.values(), key=lambda one: (one.path.name, one.path))


def _no_results(places: Iterable[Path]) -> MissingDataError:
    shown = " ".join(map(str, places))
    return MissingDataError(
        f"{shown} holds no results file of lm_eval, Inspect or lighteval: run lm_eval with --output_path {shown} first"
    )


def _search(folder: Path) -> Iterator[Candidate]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _NOT_SEARCHED)
        for name in names:
            path = Path(parent, name)
            is_meant = _NAME.fullmatch(name) is not None
            if (is_meant or (not name.startswith(_SAMPLES_PREFIX) and _looks_like_results(path))) and path.is_file():
                yield Candidate(path, is_meant)


def _looks_like_results(path: Path) -> bool:
    """Whether a file may hold results, decided without parsing it: large files of other kinds cost little."""
    try:
        # A pipe or a device would block.
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            if path.suffix != ".json":
                return _RESULTS_FIRST.match(head) is not None
            if is_inspect_log(path, head):
                return True
            if not _OBJECT.match(head):
                return False
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return content.find(b'"results"') >= 0 and any(content.find(mark) >= 0 for mark in _MARKS)
    except (OSError, ValueError):
        return False


def _tool(path: Path) -> Literal["inspect", "lighteval", "lm_eval"]:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            if is_inspect_log(path, head):
                return "inspect"
            return "lighteval" if _OBJECT.match(head) and is_lighteval(head + file.read()) else "lm_eval"
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror}") from None
