"""Texts of data sets on the hub; a module of its own, as `datasets` takes seconds to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import datasets
from packaging.version import Version

from lm_eval_pruned.errors import DataError, MissingDataError

# Before version 4, `datasets` ran the script of a data set, or asked on the terminal whether to.
NO_CODE: Mapping[str, bool] = {} if Version(datasets.__version__).major >= 4 else {"trust_remote_code": False}


def read_hub(calib: str, arguments: Mapping[str, object], *, column: str, local: str) -> Sequence[str]:
    """Return a column of a data set on the hub.

    Args:
        calib: value of the argument `calib`, for errors.
        arguments: arguments of `datasets.load_dataset`.
        column: name of the column with texts.
        local: sentence about the choices that need no network, for errors.

    Raises:
        MissingDataError: the hub cannot be reached.
        DataError: there is no such column.
    """
    try:
        rows = datasets.load_dataset(**arguments, **NO_CODE)
    except (OSError, ValueError, RuntimeError) as error:
        # What `datasets` raises without a network changes from release to release; all of it means unreachable.
        raise MissingDataError(
            f"calib={calib} cannot be loaded from the hub ({type(error).__name__}). {local}"
        ) from error
    if column not in rows.column_names:
        raise DataError(f"calib={calib} has no column {column!r}, only {', '.join(rows.column_names)}")
    return _Column(rows, column)


class _Column(Sequence[str]):
    """A lazy column of a data set: as a list, a shard of C4 would take gigabytes."""

    def __init__(self, rows: datasets.Dataset, name: str) -> None:
        self._rows, self._name = rows, name

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        return str(self._rows[index][self._name])
