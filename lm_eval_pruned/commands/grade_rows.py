"""Grade one row of a JSONL file: return the row with its verdict, or the reason why it cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, NoReturn, cast

from lm_eval_pruned.commands.harness_rows import gradable, is_harness_row
from lm_eval_pruned.errors import DataError, UnknownNameError
from lm_eval_pruned.grading.answer_kinds import Kind, check_kind
from lm_eval_pruned.grading.modes import grade, verify
from lm_eval_pruned.grading.verdict import Verdict

# Longer lines are not parsed, which bounds the memory needed for a line.
MAX_LINE_BYTES = 64 * 2**20
# Characters of a malformed line that its output row quotes.
MAX_QUOTED_CHARACTERS = 1000
# Gold answers of one row, each of which is compared with the answer.
MAX_GOLDS = 100

# What a defect of the grader raises on text that its authors did not foresee.
DEFECTS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class GradedRow(NamedTuple):
    """A verdict, the output row as a line of JSON, whether the row could be read, and the filter of the harness."""

    verdict: Verdict
    line: bytes
    is_read: bool = True
    filter: object = None


def grade_line(line: bytes, number: int, *, mode: str, kind: str | None) -> list[GradedRow]:
    r"""Grade one line of a JSONL file; a malformed line gets a verdict too.

    A row of the harness's samples gives one graded row for each response.

    Args:
        line: the row as JSON.
        number: of the line, for messages.
        mode: name of the grading mode.
        kind: kind of answer, for rows that do not name one; None is math, or what a row of the harness shows.

    Raises:
        UnknownNameError: there is no such mode.

    Example:
        >>> (row,) = grade_line(b'{"gold": 5, "response": "I am not sure."}', 1, mode="default", kind="math")
        >>> row.verdict.status, row.line[:61]
        ('no_answer', b'{"gold": 5, "response": "I am not sure.", "extracted": null, ')
    """
    try:
        row = _parse(line)
        rows = _of_harness(row, kind) if is_harness_row(row) else [row]
        verdicts = [_judge(one, number, mode, kind or "math") for one in rows]
        return [
            GradedRow(verdict, _encode(one, verdict), _is_read(verdict), row.get("filter") if one is not row else None)
            for one, verdict in zip(rows, verdicts, strict=True)
        ]
    except DataError as problem:
        reason = str(problem)
    except RecursionError:
        reason = "is nested too deeply"
    verdict = _unparsed(number, f"the line {reason}")
    quoted = line[: 4 * MAX_QUOTED_CHARACTERS].decode(errors="replace")[:MAX_QUOTED_CHARACTERS]
    return [GradedRow(verdict, _encode({"line": quoted}, verdict), is_read=False)]


def _of_harness(row: Mapping[str, object], kind: str | None) -> list[dict[str, object]]:
    """Return the responses of a row of the harness.

    Raises:
        DataError: it has none.
    """
    rows = list(gradable(row))
    if not rows:
        raise DataError("holds log-likelihoods of choices and no text of a model: its metrics are final")
    return [{**one, "kind": kind} for one in rows] if kind else rows


def _parse(line: bytes) -> dict[str, object]:
    """Parse a line as a JSON object.

    Raises:
        DataError: it is not one, or has numbers that cannot be represented.
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
    """Judge a row, or return what is wrong with it as the verdict."""
    try:
        return _judge_fields(row, mode, kind)
    except (DataError, UnknownNameError) as problem:
        return _unparsed(number, str(problem))
    except DEFECTS as defect:
        # A defect of the grader costs one row, whose verdict names it, and not the thousands after it.
        return _unparsed(number, f"the grader failed: {type(defect).__name__}: {defect}"[:MAX_QUOTED_CHARACTERS])


def _judge_fields(row: Mapping[str, object], mode: str, kind: str) -> Verdict:
    """Return the verdict for the first gold answer that matches, or else for the first gold answer.

    Raises:
        DataError, UnknownNameError: a field is missing, has the wrong type or names an unknown kind.
    """
    golds = _golds(row)
    chosen = _kind(_text(row, "kind") if "kind" in row else kind)
    judge: Callable[[str], Verdict]
    if "response" in row:
        judge = partial(grade, response=_text(row, "response"), kind=chosen, finished=_finished(row), mode=mode)
    elif "answer" in row:
        judge = partial(verify, answer=_scalar("answer", row["answer"]), kind=chosen, mode=mode)
    else:
        raise DataError("response and answer are both missing")
    verdicts = []
    for gold in golds:
        verdict = judge(gold)
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
    texts = [_scalar("gold", member) for member in golds]
    if not any(map(str.strip, texts)):
        raise DataError("the gold answer is empty: nothing can be compared with it")
    return texts


def _text(row: Mapping[str, object], name: str) -> str:
    value = row[name]
    if not isinstance(value, str):
        raise DataError(f"{name} is {_type(value)}, not text")
    return value


def _finished(row: Mapping[str, object]) -> bool | None:
    finished = row.get("finished")
    if finished is not None and not isinstance(finished, bool):
        raise DataError(f"finished is {_type(finished)}: give true, false or null")
    return finished


def _scalar(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{name} is {_type(value)}, not text or a number")
    return str(value)


def _type(value: object) -> str:
    """Return the name of a JSON value's type."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names[type(value)]


def _is_read(verdict: Verdict) -> bool:
    """Whether a row had what is needed: an answer that cannot be compared was read."""
    return verdict.status != "unparsed" or verdict.extracted is not None


def _unparsed(number: int, problem: str) -> Verdict:
    return Verdict(correct=False, status="unparsed", reason=f"line {number}: {problem}", extracted=None)


def _encode(row: Mapping[str, object], verdict: Verdict) -> bytes:
    content = {
        **row,
        "extracted": verdict.extracted,
        "correct": verdict.correct,
        "reason": verdict.reason,
        "status": verdict.status,
        "stage": verdict.stage,
    }
    return as_line(content)


def as_line(content: Mapping[str, object]) -> bytes:
    """Return a row as a line of JSON."""
    try:
        return json.dumps(content, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        # UTF-8 cannot encode a lone surrogate; ASCII JSON escapes it.
        return json.dumps(content).encode() + b"\n"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if abs(value) == float("inf"):
        raise ValueError(f"{digits[:20]} is beyond a float")
    return value
