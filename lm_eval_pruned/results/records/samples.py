"""Read samples files of the harness line by line, storing two numbers per question: its key and its metric."""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.files import MALFORMED
from lm_eval_pruned.results.limits import MAX_LINE_BYTES
from lm_eval_pruned.results.records.finished import Finished, finished, finished_row
from lm_eval_pruned.results.records.row_values import row_value

# Follows the texts of a row, as the harness writes it. Inside a text the quotes would be escaped.
_TAIL = b', "filter": "'
_HASH = b'"doc_hash": "'
_RESPONSES, _FILTERED = b', "resps": ', b', "filtered_resps": '
# Log-likelihoods, which the harness writes as two texts, and several answers to one question.
_SCORED, _SEVERAL = re.compile(rb'\["-?(?:inf|[0-9.e+-]+)", "(?:True|False)"\]'), b'", "'
# The answer of a row that gives no single one.
UNKNOWN = 0
# Hexadecimal digits of 64 bits: among ten million questions two collide with a probability of 3 in a million.
DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """The metric of each question.

    `questions` are their keys [questions], ascending: the first 64 bits of `doc_hash`, or `doc_id` where there is none,
    plus n for the n-th repetition of a question. `correct` [questions] is the metric, a mean over the samples.
    `responses` is a hash of all responses, the same only within one process, or None where the file lacks them.
    `answers` [questions] are hashes of the extracted answers, UNKNOWN where there is not just one; None where the file
    has none, or several runs were merged. `finished` is None where the rows do not say what was cut. `weights`
    [questions] are what the metric is a rate of, the bytes of each document; None where all questions count the same.
    """

    questions: NDArray[np.uint64]
    correct: NDArray[np.float64]
    responses: int | None = None
    answers: NDArray[np.int64] | None = None
    finished: Finished | None = None
    weights: NDArray[np.float64] | None = None

    @property
    def mean(self) -> float:
        """The metric over all questions."""
        return float(np.average(self.correct, weights=self.weights))

    @property
    def spread(self) -> NDArray[np.float64]:
        """Values [questions] whose plain mean is the metric, with the variance of a ratio where there are weights.

        mean + (correct - mean) * weights / mean(weights), the linear approximation of a ratio estimator.
        """
        if self.weights is None:
            return self.correct
        spread: NDArray[np.float64] = self.mean + (self.correct - self.mean) * self.weights / self.weights.mean()
        return spread


def isin(questions: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether each question is among `others`, [questions]."""
    # kind="sort": the table that numpy 2.0 prefers for integers fails for the largest 64-bit ones.
    mask: NDArray[np.bool_] = np.isin(questions, others, kind="sort")
    return mask


class Columns(NamedTuple):
    """Columns of the rows read so far: keys, metrics, hashes of responses and answers, finished shares, and weights."""

    keys: array[int]
    values: array[float]
    digests: array[int]
    answers: array[int]
    shares: array[float]
    right: array[float]
    weights: array[float]

    @classmethod
    def empty(cls) -> Columns:
        """Return columns without rows."""
        return cls(array("Q"), array("d"), array("q"), array("q"), array("d"), array("d"), array("d"))


def read_samples(path: Path, metrics: Mapping[str, str]) -> dict[str, Outcomes]:
    """Read a samples file, JSON lines or, as up to 0.4.2, a list: for each filter the outcomes in its metric.

    A filter without rows, or whose metric is not one number per question (a perplexity), is left out.

    Raises:
        DataError: a line is cut short, is not a row of the harness, or lacks the metric.
    """
    try:
        with path.open("rb") as file:
            if _is_list(file):
                return samples_outcomes(path, json.load(file), metrics)
            return samples_outcomes(path, iter(partial(file.readline, MAX_LINE_BYTES), b""), metrics)
    except DataError:
        raise
    except MALFORMED as problem:
        raise DataError(f"{path} is cut short or not a list of rows of the harness ({problem!r:.200})") from None
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror}") from None


def samples_outcomes(path: Path, rows: Iterable[object], metrics: Mapping[str, str]) -> dict[str, Outcomes]:
    """Return for each filter the outcomes in its metric, from rows or their lines; `path` is named in errors.

    Raises:
        DataError: a line is cut short, is not a row of the harness, or lacks the metric.
    """
    filters = {name: Columns.empty() for name in metrics}
    # Up to 0.4.2 a row does not name its filter: each question comes once for every filter, in their order.
    names, seen = list(metrics), Counter[int]()
    number = 0
    try:
        for line in rows:
            number += 1
            row = _row(line) if isinstance(line, bytes) else line
            name = row.get("filter")  # type: ignore[attr-defined]
            if name is None:
                key = _key(row)  # type: ignore[arg-type]
                name = names[seen[key] % len(names)]
                seen[key] += 1
            columns = filters.get(name)
            if columns is None:
                continue
            scored = row_value(metrics[name], row[metrics[name]])  # type: ignore[index]
            if scored is not None:
                value = scored.value
                columns.keys.append(_key(row))  # type: ignore[arg-type]
                columns.values.append(value)
                if scored.weight is not None:
                    columns.weights.append(scored.weight)
                _append_texts(columns, line)
                if (of_finished := finished_row(row, value)) is not None:  # type: ignore[arg-type]
                    columns.shares.append(of_finished.share)
                    columns.right.append(of_finished.right)
            elif columns.keys:
                raise ValueError(f"{row[metrics[name]]!r} is not a number")  # type: ignore[index]
            else:
                del filters[name]
    except MALFORMED as problem:
        raise DataError(f"{path}: line {number} is cut short or not a row of the harness ({problem!r:.200})") from None
    return {name: ordered(columns, path) for name, columns in filters.items() if columns.keys}


def find_rows(path: Path, questions: Collection[int], filter_name: str) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield (key, row) for the questions with these keys, as in Outcomes, and stop after the last one.

    Only the first row of a repeated question is found, since only that has the question's own key.

    Raises:
        DataError: the file cannot be read, or one of these rows is malformed.
    """
    wanted = set(questions)
    try:
        with path.open("rb") as file:
            if _is_list(file):
                yield from find_listed_rows(json.load(file), questions, filter_name)
                return
            for line in iter(partial(file.readline, MAX_LINE_BYTES), b""):
                if not wanted:
                    return
                start = line.rfind(_HASH) + len(_HASH)
                # Nearly all rows are skipped by their hash, without parsing them.
                if start >= len(_HASH) and int(line[start : start + DIGITS], 16) not in wanted:
                    continue
                row = json.loads(line)
                key = _key(row)
                if key in wanted and row.get("filter", filter_name) == filter_name:
                    wanted.remove(key)
                    yield key, row
    except MALFORMED as problem:
        raise DataError(f"{path} holds a line that is not a row of the harness ({problem!r:.200})") from None
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror}") from None


def find_listed_rows(
    rows: Iterable[dict[str, object]], questions: Collection[int], filter_name: str
) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield (key, row) as `find_rows` does, from rows that were parsed already."""
    wanted = set(questions)
    for row in rows:
        if row.get("filter", filter_name) == filter_name and (key := _key(row)) in wanted:
            wanted.remove(key)
            yield key, row


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


def _append_texts(columns: Columns, line: object) -> None:
    """Hash the responses and the answer of a row, which stand before the filter, without parsing them."""
    if not isinstance(line, bytes):
        return
    end = line.rfind(_TAIL)
    start = line.rfind(_RESPONSES, 0, end)
    middle = line.rfind(_FILTERED, start, end)
    if 0 <= start < end:
        columns.digests.append(hash(line[start:end]))
    if 0 <= start < middle:
        columns.answers.append(_answer(line[start + len(_RESPONSES) : middle], line[middle + len(_FILTERED) : end]))


def _answer(responses: bytes, filtered: bytes) -> int:
    """Hash the extracted answer; UNKNOWN if there are several, if nothing was extracted, or if it is a likelihood."""
    if _SEVERAL in filtered or responses in (filtered, b"[" + filtered + b"]") or _SCORED.search(filtered):
        return UNKNOWN
    return hash(filtered)


def _is_list(file: BinaryIO) -> bool:
    """Whether a file holds one list, and not lines; returns to its start."""
    start = file.read(64).lstrip()
    file.seek(0)
    return start.startswith(b"[")


def _key(row: Mapping[str, object]) -> int:
    given = row.get("doc_hash")
    if isinstance(given, str):
        return int(given[:DIGITS], 16)
    number = row["doc_id"]
    if isinstance(number, int) or (isinstance(number, str) and number.isdecimal()):
        return int(number)
    raise ValueError("doc_id is not a whole number")


def ordered(columns: Columns, path: Path) -> Outcomes:
    """Return the outcomes in the order of their keys, each repetition of a question under a key of its own.

    Raises:
        DataError: a metric is infinite or not a number; `path` is named.
    """
    keys = np.frombuffer(columns.keys, dtype=np.uint64)
    values = np.frombuffer(columns.values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"{path}: a metric is infinite or not a number")
    if len(columns.weights) == len(keys) and not np.sum(columns.weights) > 0:
        raise DataError(f"{path}: its documents have no bytes")
    order = np.argsort(keys, kind="stable")
    questions = keys[order]
    # The index of each key among equal ones.
    repetition = np.arange(len(keys)) - np.searchsorted(questions, questions)
    digests, answers = (_complete(one, order) for one in (columns.digests, columns.answers))
    return Outcomes(
        questions=questions + repetition.astype(np.uint64),
        correct=values[order],
        responses=None if digests is None else hash(digests.tobytes()),
        answers=None if answers is None or not (answers != UNKNOWN).any() else answers,
        finished=finished(columns.shares, columns.right) if len(columns.shares) == len(keys) else None,
        weights=np.frombuffer(columns.weights, dtype=np.float64)[order] if len(columns.weights) == len(keys) else None,
    )


def _complete(hashes: array[int], order: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return hashes in the order of their questions, None if a row lacks one."""
    return np.frombuffer(hashes, dtype=np.int64)[order] if len(hashes) == len(order) else None
