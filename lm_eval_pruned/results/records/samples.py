"""Read samples files of the harness line by line, storing two numbers per question: its key and its metric."""

from __future__ import annotations

import json
from array import array
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.files import MALFORMED
from lm_eval_pruned.results.limits import MAX_LINE_BYTES

# Follows the texts of a row, as the harness writes it. Inside a text the quotes would be escaped.
_TAIL = b', "filter": "'
_HASH = b'"doc_hash": "'
_RESPONSES = b', "resps": '
# Hexadecimal digits of 64 bits: among ten million questions two collide with a probability of 3 in a million.
_DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """The metric of each question.

    `questions` are their keys [questions], ascending: the first 64 bits of `doc_hash`, or `doc_id` where there is none,
    plus n for the n-th repetition of a question. `correct` [questions] is the metric, a mean over the samples.
    `responses` is a hash of all responses, the same only within one process, or None where the file lacks them.
    """

    questions: NDArray[np.uint64]
    correct: NDArray[np.float64]
    responses: int | None = None


def isin(questions: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether each question is among `others`, [questions]."""
    # kind="sort": the table that numpy 2.0 prefers for integers fails for the largest 64-bit ones.
    mask: NDArray[np.bool_] = np.isin(questions, others, kind="sort")
    return mask


class _Columns(NamedTuple):
    keys: array[int]
    values: array[float]
    digests: array[int]


def read_samples(path: Path, metrics: Mapping[str, str]) -> dict[str, Outcomes]:
    """Read a `samples_*.jsonl`: for each filter the outcomes in its metric.

    A filter without rows, or whose metric is not one number per question (a perplexity), is left out.

    Raises:
        DataError: a line is cut short, is not a row of the harness, or lacks the metric.
    """
    filters = {name: _Columns(array("Q"), array("d"), array("q")) for name in metrics}
    # Older versions of the harness do not name the filter in the row.
    unnamed = next(iter(metrics)) if len(metrics) == 1 else "none"
    number = 0
    try:
        with path.open("rb") as file:
            for line in iter(partial(file.readline, MAX_LINE_BYTES), b""):
                number += 1
                row = _row(line)
                name = row.get("filter", unnamed)
                columns = filters.get(name)  # type: ignore[call-overload]
                if columns is None:
                    continue
                value = row[metrics[name]]  # type: ignore[index]
                if isinstance(value, int | float):
                    columns.keys.append(_key(row))
                    columns.values.append(value)
                    if (digest := _digest(line)) is not None:
                        columns.digests.append(digest)
                elif columns.keys:
                    raise ValueError(f"{value!r} is not a number")
                else:
                    del filters[name]  # type: ignore[arg-type]
    except MALFORMED as problem:
        raise DataError(f"{path}: line {number} is cut short or not a row of the harness ({problem!r:.200})") from None
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror}") from None
    return {name: _outcomes(columns, path) for name, columns in filters.items() if columns.keys}


def find_rows(path: Path, questions: Collection[int], filter_name: str) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield (key, row) for the questions with these keys, as in Outcomes, and stop after the last one.

    Only the first row of a repeated question is found, since only that has the question's own key.

    Raises:
        DataError: the file cannot be read, or one of these rows is malformed.
    """
    wanted = set(questions)
    try:
        with path.open("rb") as file:
            for line in iter(partial(file.readline, MAX_LINE_BYTES), b""):
                if not wanted:
                    return
                start = line.rfind(_HASH) + len(_HASH)
                # Nearly all rows are skipped by their hash, without parsing them.
                if start >= len(_HASH) and int(line[start : start + _DIGITS], 16) not in wanted:
                    continue
                row: dict[str, object] = json.loads(line)
                key = _key(row)
                if key in wanted and row.get("filter", filter_name) == filter_name:
                    wanted.remove(key)
                    yield key, row
    except MALFORMED as problem:
        raise DataError(f"{path} holds a line that is not a row of the harness ({problem!r:.200})") from None
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror}") from None


def _row(line: bytes) -> dict[str, object]:
    """Parse a line, skipping its texts if it is laid out as the harness writes it.

    The text from the last `"filter"` on is a complete object only if that key is at the top level.
    """
    start = line.rfind(_TAIL)
    if start >= 0:
        try:
            tail: dict[str, object] = json.loads("{" + line[start + 1 :].decode())
        except ValueError:
            tail = {}
        if "doc_hash" in tail:
            return tail
    whole: dict[str, object] = json.loads(line)
    return whole


def _digest(line: bytes) -> int | None:
    """Hash the responses of a row, which stand between their key and the filter's, without parsing them."""
    end = line.rfind(_TAIL)
    start = line.rfind(_RESPONSES, 0, end)
    return hash(line[start:end]) if 0 <= start < end else None


def _key(row: Mapping[str, object]) -> int:
    given = row.get("doc_hash")
    if isinstance(given, str):
        return int(given[:_DIGITS], 16)
    number = row["doc_id"]
    if isinstance(number, int):
        return number
    raise ValueError("doc_id is not a whole number")


def _outcomes(columns: _Columns, path: Path) -> Outcomes:
    keys = np.frombuffer(columns.keys, dtype=np.uint64)
    values = np.frombuffer(columns.values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"{path}: a metric is infinite or not a number")
    order = np.argsort(keys, kind="stable")
    questions = keys[order]
    # The index of each key among equal ones.
    repetition = np.arange(len(keys)) - np.searchsorted(questions, questions)
    return Outcomes(
        questions=questions + repetition.astype(np.uint64),
        correct=values[order],
        responses=hash(np.frombuffer(columns.digests, dtype=np.int64)[order].tobytes())
        if len(columns.digests) == len(keys)
        else None,
    )
