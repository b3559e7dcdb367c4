"""Answered questions of other tools' files: what they hold of one question, and the outcomes of a run made from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lm_eval_pruned.files import sha256_of_json
from lm_eval_pruned.results.records.samples import DIGITS, UNKNOWN, Columns, Outcomes, ordered


class Answered(NamedTuple):
    """A question of a run: its key, its metric, its texts, and the answer taken from the response, "" if unknown.

    `responses` has one text for each sample, and none where the choices were scored.
    """

    key: int
    value: float
    question: str
    gold: str
    responses: Sequence[str]
    answer: str = ""


def question_key(*parts: object) -> int:
    """Return a question's key, the same wherever its parts are: the question, its gold answers and its choices.

    Example:
        >>> question_key("1 + 1?", ["2"]) == question_key("1 + 1?", ["2"]), question_key("1 + 1?", ["2"]) < 2**64
        (True, True)
    """
    return int(sha256_of_json(parts)[:DIGITS], 16)


def answered_outcomes(answered: Iterable[Answered], path: Path) -> Outcomes | None:
    """Return the outcomes of the questions in the file at `path`; None if there are none.

    Raises:
        DataError: a metric is infinite or not a number.

    Example:
        >>> rows = [Answered(5, 1.0, "1 + 1?", "2", ["It is 2."], "2"), Answered(3, 0.0, "1 + 2?", "3", ["4"], "4")]
        >>> found = answered_outcomes(rows, Path("run.eval"))
        >>> found.questions.tolist(), found.correct.tolist()
        ([3, 5], [0.0, 1.0])
    """
    columns = Columns.empty()
    for one in answered:
        columns.keys.append(one.key)
        columns.values.append(one.value)
        # Likelihoods of choices are no texts that could be compared.
        if one.responses:
            columns.digests.append(hash(tuple(one.responses)))
            columns.answers.append(_answer(one))
    return ordered(columns, path) if columns.keys else None


def _answer(one: Answered) -> int:
    """Hash the extracted answer; UNKNOWN if there are several, or if nothing was extracted."""
    is_extracted = one.answer and len(one.responses) == 1 and one.answer != one.responses[0]
    return hash(one.answer) if is_extracted else UNKNOWN
