"""A row of answers, as one line of JSON, becomes the same row with its verdict; a row that cannot be read says why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, NamedTuple, NoReturn, cast

from lm_eval_pruned.errors import DataError, UnknownNameError
from lm_eval_pruned.grading.answer_kinds import Kind, check_kind
from lm_eval_pruned.grading.modes import grade_in, verify_in
from lm_eval_pruned.grading.verdict import Verdict

# A longer line is skipped unread: one line at a time is all that is held in memory.
MAX_LINE_BYTES = 64 * 2**20
# So much is kept of a line that is no row.
MAX_KEPT_CHARACTERS = 1000
# Golds of one row, each of which is compared with its answer.
MAX_GOLDS = 100

# What a text that nobody thought of makes code raise.
DEFECTS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class GradedRow(NamedTuple):
    """A verdict with the whole output row, a line of JSON."""

    verdict: Verdict
    line: bytes


def numbered_lines(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    r"""Yield the lines that are not blank with their numbers from 1; of one that is too long, a beginning too long.

    Example:
        >>> from io import BytesIO
        >>> list(numbered_lines(BytesIO(b"\xef\xbb\xbf{}\r\n\n[]")))
        [(1, b'{}'), (3, b'[]')]
    """
    number = 0
    while line := source.readline(MAX_LINE_BYTES + 1):
        number += 1
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = source.readline(MAX_LINE_BYTES + 1)
        content = (line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line).strip()
        if content:
            yield number, content


def grade_line(line: bytes, number: int, *, mode: str, kind: str) -> GradedRow:
    r"""Grade the row on a line, whatever it holds; `kind` is for rows that name none.

    Raises:
        UnknownNameError: there is no such mode.

    Example:
        >>> verdict, line = grade_line(b'{"gold": 5, "response": "So it is 6."}', 1, mode="default", kind="math")
        >>> verdict.status, line[:58]
        ('no_answer', b'{"gold": 5, "response": "So it is 6.", "extracted": null, ')
    """
    try:
        row = _parse(line)
        verdict = _judge(row, number, mode, kind)
        return GradedRow(verdict, _encode(row, verdict))
    except DataError as problem:
        reason = str(problem)
    except RecursionError:
        reason = "is nested too deeply"
    verdict = _unparsed(number, f"the line {reason}")
    kept = line[: 4 * MAX_KEPT_CHARACTERS].decode(errors="replace")[:MAX_KEPT_CHARACTERS]
    return GradedRow(verdict, _encode({"line": kept}, verdict))


def _parse(line: bytes) -> dict[str, object]:
    """Read a line as an object.

    Raises:
        DataError: it is none, or has numbers that cannot be kept.
        RecursionError: it is nested too deeply.
    """
    if len(line) > MAX_LINE_BYTES:
        raise DataError(f"is longer than {MAX_LINE_BYTES} bytes")
    try:
        row = json.loads(line.decode(), parse_constant=_refuse, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8 at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"is no JSON: {error.msg} at character {error.pos + 1}") from None
    except ValueError as error:
        raise DataError(f"has a number that cannot be read: {error}") from None
    if not isinstance(row, dict):
        raise DataError(f"is {_type(row)}, not an object")
    return row


def _judge(row: Mapping[str, object], number: int, mode: str, kind: str) -> Verdict:
    """Judge a row, or say what is wrong with it."""
    try:
        return _judge_fields(row, mode, kind)
    except (DataError, UnknownNameError) as problem:
        return _unparsed(number, str(problem))
    except DEFECTS as defect:
        # A defect of the grader costs one row, which names it, and not the thousands behind it.
        return _unparsed(number, f"the grader failed: {type(defect).__name__}: {defect}"[:MAX_KEPT_CHARACTERS])


def _judge_fields(row: Mapping[str, object], mode: str, kind: str) -> Verdict:
    """Judge a row by the first of its golds that its answer matches, otherwise by the first.

    Raises:
        DataError, UnknownNameError: a field is missing, has the wrong type or names no kind.
    """
    golds = _golds(row)
    chosen = _kind(_text(row, "kind") if "kind" in row else kind)
    judge: Callable[[str, str, str, Kind], Verdict]
    if "response" in row:
        judge, text = grade_in, _text(row, "response")
    elif "answer" in row:
        judge, text = verify_in, _scalar("answer", row["answer"])
    else:
        raise DataError("response and answer are both missing")
    verdicts = []
    for gold in golds:
        verdict = judge(mode, gold, text, chosen)
        if verdict.correct:
            return verdict
        verdicts.append(verdict)
    return verdicts[0]


def _kind(kind: str) -> Kind:
    check_kind(kind)
    return cast("Kind", kind)


def _golds(row: Mapping[str, object]) -> list[str]:
    if "gold" not in row:
        raise DataError("gold is missing")
    gold = row["gold"]
    golds = gold if isinstance(gold, list) else [gold]
    if not 0 < len(golds) <= MAX_GOLDS:
        raise DataError(f"gold has {len(golds)} members: give 1 to {MAX_GOLDS}")
    return [_scalar("gold", member) for member in golds]


def _text(row: Mapping[str, object], name: str) -> str:
    value = row[name]
    if not isinstance(value, str):
        raise DataError(f"{name} is {_type(value)}, not text")
    return value


def _scalar(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{name} is {_type(value)}, not text or a number")
    return str(value)


def _type(value: object) -> str:
    """Name the type of a value of JSON."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names[type(value)]


def _unparsed(number: int, problem: str) -> Verdict:
    return Verdict(correct=False, status="unparsed", reason=f"line {number}: {problem}", extracted=None)


def _encode(row: Mapping[str, object], verdict: Verdict) -> bytes:
    content = {
        **row,
        "extracted": verdict.extracted,
        "correct": verdict.correct,
        "reason": verdict.reason,
        "status": verdict.status,
    }
    try:
        return json.dumps(content, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        # Half of a surrogate pair has no bytes in UTF-8, only an escape.
        return json.dumps(content).encode() + b"\n"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if abs(value) == float("inf"):
        raise ValueError(f"{digits[:20]} is beyond a float")
    return value
