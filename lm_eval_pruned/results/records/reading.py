"""Read all results files in and below folders, and collect what could not be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lm_eval_pruned.errors import DataError, MissingDataError
from lm_eval_pruned.results.records.record import Record, read_record


class Records(NamedTuple):
    """Runs, oldest first, and a sentence for each file that was skipped."""

    records: list[Record]
    problems: list[str]


def read_records(places: Sequence[Path]) -> Records:
    """Read all results files in and below `places`; a file that cannot be read is skipped and added to the problems.

    Raises:
        MissingDataError: a path does not exist, or there is no results file in any.
        DataError: none of the files can be read.
    """
    records, problems = [], []
    for path in find_results(places):
        try:
            records.append(read_record(path))
        except DataError as problem:
            problems.append(str(problem))
        else:
            problems += records[-1].problems
    if not records:
        raise DataError(f"none of the {len(problems)} results files can be read, the first: {problems[0]}")
    return Records(sorted(records, key=lambda record: record.date), problems)


def find_results(places: Iterable[Path]) -> list[Path]:
    """Return the results files in and below folders, and those given directly, without duplicates, sorted by name.

    Raises:
        MissingDataError: a path does not exist, or there is no results file.
    """
    files: dict[Path, None] = {}
    for place in places:
        if not place.exists():
            raise MissingDataError(f"there is no {place}: give folders with results of lm_eval")
        paths = sorted(place.rglob("results_*.json")) if place.is_dir() else [place]
        files.update(dict.fromkeys(path.resolve() for path in paths))
    if not files:
        shown = " ".join(map(str, places))
        raise MissingDataError(f"{shown} holds no results_*.json: run lm_eval with --output_path {shown} first")
    return sorted(files, key=lambda path: path.name)
