"""Read published figures from a CSV file, to be shown next to measured ones."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from lm_eval_pruned.errors import DataError, MissingDataError

REQUIRED = ("model", "method", "budget", "task", "acc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One published figure: `acc`, its standard deviation over seeds, and where it was published."""

    model: str
    label: str
    task: str
    budget: int
    acc: float
    std: float | None
    source: str


def read_reference(path: Path) -> list[Published]:
    """Read a CSV file with the columns of REQUIRED, and optionally allocation, sparsity, std and source.

    The method `none` is the dense model.

    Raises:
        MissingDataError: it cannot be read.
        DataError: a column is missing, or a row has something other than a number where one belongs.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if missing := [name for name in REQUIRED if name not in (rows.fieldnames or ())]:
                raise DataError(f"{path} lacks the columns {', '.join(missing)}: a reference has {', '.join(REQUIRED)}")
            return [_published(row, f"{path}, line {rows.line_num}", path.stem) for row in rows]
    except OSError as problem:
        raise MissingDataError(f"the reference {path} cannot be read: {problem.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as problem:
        raise DataError(f"{path} is no CSV file: {problem}") from None


def _published(cells: dict[str, str | None], location: str, stem: str) -> Published:
    # The last cells of a row that is cut short are None.
    row = {name: value for name, value in cells.items() if value}
    if missing := [name for name in REQUIRED if name not in row]:
        raise DataError(f"{location} has no {' and no '.join(missing)}")
    try:
        words = (row["method"], row.get("allocation"), f"{float(row['sparsity']):g}" if "sparsity" in row else "")
        return Published(
            model=row["model"],
            label="dense" if row["method"] == "none" else " ".join(word for word in words if word),
            task=row["task"],
            budget=int(row["budget"]),
            acc=_fraction(row, "acc"),
            std=_fraction(row, "std") if "std" in row else None,
            source=row.get("source", stem),
        )
    except ValueError as problem:
        raise DataError(f"{location}: {problem}") from None


def _fraction(row: dict[str, str], name: str) -> float:
    value = float(row[name])
    if not 0 <= value <= 1:
        raise ValueError(f"{name} {row[name]} is not a fraction: give 0.5 for 50 %")
    return value
