"""What was asked and answered, read for a few questions from the samples files of the harness."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from lm_eval_pruned.grading.extract.extract import extract
from lm_eval_pruned.results.measurement import Key, measure
from lm_eval_pruned.results.records.record import Record, samples_file
from lm_eval_pruned.results.records.samples import find_rows

# A longer text loses its middle: what it is about stands at its beginning, and its answer at its end.
MAX_CHARACTERS = 3_000
_HEAD = MAX_CHARACTERS // 3
# Fields of documents that hold the question alone, without the examples and the template of a prompt.
_QUESTIONS = ("problem", "Problem", "question", "Question", "query")


class Text(NamedTuple):
    """A question, its gold answer, the first response, and the answer that gives; "" for what there is not."""

    question: str
    gold: str
    response: str
    answer: str


def newest_runs(records: Sequence[Record]) -> dict[Key, Record]:
    """Return for each measurement the last of the runs that were merged into it."""
    return {key: record for record in records for key in measure([record])}


def read_texts(record: Record, key: Key, questions: Collection[int]) -> dict[int, Text]:
    """Return the texts of some questions of one task of a run, by their keys, as far as its samples file has them.

    Raises:
        DataError: the file has changed since its outcomes were read.
    """
    rows = find_rows(samples_file(record.path, key.task), questions, key.filter)
    return {question: _text(row) for question, row in rows}


def shortened(text: str) -> str:
    r"""Return a text with its middle left out, if it is longer than MAX_CHARACTERS.

    Example:
        >>> shortened("a" * 4_000)[995:1_045]
        'aaaaa\n[… 1,000 characters left out …]\naaaaaaaaaaaa'
    """
    if len(text) <= MAX_CHARACTERS:
        return text
    left_out = len(text) - MAX_CHARACTERS
    return f"{text[:_HEAD]}\n[… {left_out:,} characters left out …]\n{text[_HEAD + left_out :]}"


def _text(row: Mapping[str, object]) -> Text:
    response = next(_strings(row.get("resps")), "")
    filtered = next(_strings(row.get("filtered_resps")), "")
    gold = _written(row.get("target"))
    # A filter of the harness that extracts has done so; ours keeps the response as it is.
    if filtered not in ("", response):
        answer = filtered
    else:
        answer = extract(response, "choice" if gold in set("ABCDEFGHIJ") else "math") or ""
    return Text(shortened(_question(row)), shortened(gold), shortened(response), shortened(answer))


def _question(row: Mapping[str, object]) -> str:
    document = row.get("doc")
    if isinstance(document, Mapping):
        for name in _QUESTIONS:
            if isinstance(document.get(name), str):
                return str(document[name])
    return next(_strings(row.get("arguments")), "")


def _strings(value: object) -> Iterator[str]:
    """Yield the texts in nested lists and objects, but no log-likelihoods: what was scored was not written."""
    if _is_scored(value):
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)


def _is_scored(value: object) -> bool:
    """Tell a log-likelihood, which the harness writes as two texts: a number, and whether greedy decoding agrees."""
    match value:
        case [str() as number, "True" | "False"]:
            return re.fullmatch(r"-?(inf|[0-9.e+-]+)", number) is not None
    return False


def _written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
