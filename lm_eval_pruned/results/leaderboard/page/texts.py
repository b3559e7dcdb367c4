"""Read the texts of a few questions, their gold answers and responses from the files of their runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from lm_eval_pruned.results.limits import MAX_CHARACTERS
from lm_eval_pruned.results.measurement import Key, measure
from lm_eval_pruned.results.records.reading import read_answers
from lm_eval_pruned.results.records.record import Record
from lm_eval_pruned.results.records.samples_files import find_task_rows

_HEAD = MAX_CHARACTERS // 3
# Document fields with the question alone, without few-shot examples and chat template.
_QUESTIONS = ("problem", "Problem", "question", "Question", "query")


# Returns the answer that a response gives, or None.
Extract: TypeAlias = Callable[[str, Literal["math", "choice"]], str | None]


class Text(NamedTuple):
    """A question, its gold answer, the first response, and the answer in that; "" where one is missing."""

    question: str
    gold: str
    response: str
    answer: str


def newest_runs(records: Sequence[Record]) -> dict[Key, Record]:
    """Return the last of the runs merged into each measurement."""
    return {key: record for record in records for key in measure([record])}


def read_texts(record: Record, key: Key, questions: Collection[int], extract: Extract) -> dict[int, Text]:
    """Return the texts of some questions, by their keys, as far as the files of the run have them.

    Args:
        record: the run.
        key: its measurement, which names task and filter.
        questions: keys of the questions.
        extract: finds the answer in a response that the harness has not filtered.

    Raises:
        DataError: the file has changed since its outcomes were read.
    """
    shots = dict(key.configuration.settings).get("num_fewshot", "")
    answers = read_answers(record.path, key.task, filter_name=key.filter, shots=shots, metric=key.metric)
    if answers is not None:
        found: dict[int, Text] = {}
        for one in answers:
            # Of a repeated question, the first.
            if one.key in questions and one.key not in found:
                found[one.key] = _shortened(one.question, one.gold, next(iter(one.responses), ""), one.answer, extract)
        return found
    rows = find_task_rows(record.path, key.task, questions, key.filter)
    return {question: _text(row, extract) for question, row in rows}


def shorten(text: str) -> str:
    r"""Leave out the middle of a text that is longer than MAX_CHARACTERS.

    Example:
        >>> shorten("a" * 4_000)[995:1_045]
        'aaaaa\n[… 1,000 characters left out …]\naaaaaaaaaaaa'
    """
    if len(text) <= MAX_CHARACTERS:
        return text
    left_out = len(text) - MAX_CHARACTERS
    return f"{text[:_HEAD]}\n[… {left_out:,} characters left out …]\n{text[_HEAD + left_out :]}"


def _text(row: Mapping[str, object], extract: Extract) -> Text:
    response = next(_strings(row.get("resps")), "")
    filtered = next(_strings(row.get("filtered_resps")), "")
    return _shortened(_question(row), _as_text(row.get("target")), response, filtered, extract)


def _shortened(question: str, gold: str, response: str, filtered: str, extract: Extract) -> Text:
    # A filter of the harness has extracted the answer; our tasks' filter leaves the response as it is.
    if filtered not in ("", response):
        answer = filtered
    else:
        answer = extract(response, "choice" if gold in set("ABCDEFGHIJ") else "math") or ""
    return Text(shorten(question), shorten(gold), shorten(response), shorten(answer))


def _question(row: Mapping[str, object]) -> str:
    document = row.get("doc")
    if isinstance(document, Mapping):
        for name in _QUESTIONS:
            if isinstance(document.get(name), str):
                return str(document[name])
    return next(_strings(row.get("arguments")), "")


def _strings(value: object) -> Iterator[str]:
    """Yield the texts in nested lists and objects, except log-likelihoods, which are not written by the model."""
    if _is_scored(value):
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for member in value.values():
            yield from _strings(member)
    elif isinstance(value, list):
        for member in value:
            yield from _strings(member)


def _is_scored(value: object) -> bool:
    """Whether a value is a log-likelihood, written as two texts: a number, and whether greedy decoding agrees."""
    match value:
        case [str() as number, "True" | "False"]:
            return re.fullmatch(r"-?(inf|[0-9.e+-]+)", number) is not None
    return False


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
