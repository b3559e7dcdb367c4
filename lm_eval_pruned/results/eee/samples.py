"""The responses of a run as lines of the instance-level schema: one for each row of its samples files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.files import MALFORMED, numbered_lines
from lm_eval_pruned.results.eee.scores import evaluation_name, result_id
from lm_eval_pruned.results.records.record import Record
from lm_eval_pruned.results.records.samples_files import samples_file
from lm_eval_pruned.results.records.task_result import TaskResult

# Where data sets have the question itself; the prompt has a template and examples around it.
_QUESTIONS = ("problem", "question", "Question", "prompt")


def sample_lines(record: Record, evaluation_id: str, model_id: str, version: str) -> Iterator[dict[str, object]]:
    """Yield a line for each question of each result; none for tasks that score given texts instead of responses.

    Args:
        record: the run.
        evaluation_id: of its record.
        model_id: of its record.
        version: of the schema.

    Raises:
        DataError: a samples file is not one of JSON lines, or has changed since it was read.
    """
    for result in record.results:
        path = samples_file(record.path, result.task)
        # Those of a run that was stopped early have no result to belong to.
        if result.stopped is not None or result.outcomes is None or path.suffix != ".jsonl" or not path.is_file():
            continue
        shared = {
            "schema_version": version,
            "evaluation_id": evaluation_id,
            "model_id": model_id,
            "evaluation_name": evaluation_name(result.task, result.filter),
            "evaluation_result_id": result_id(result.task, result.filter, result.metric),
        }
        for row in _rows(path):
            if row.get("filter", result.filter) == result.filter:
                yield from _line(row, shared, result)


def _rows(path: Path) -> Iterator[Mapping[str, object]]:
    try:
        with path.open("rb") as file:
            for _, line in numbered_lines(file):
                row = json.loads(line)
                if not isinstance(row, Mapping):
                    raise TypeError("a line is not an object")
                yield row
    except (OSError, *MALFORMED) as problem:
        raise DataError(f"{path} is no samples file of JSON lines ({problem!s:.200}): leave out --samples") from None


def _line(row: Mapping[str, object], shared: Mapping[str, object], result: TaskResult) -> Iterator[dict[str, object]]:
    responses, score = _texts(row.get("resps")), row.get(result.metric)
    if not responses or isinstance(score, bool) or not isinstance(score, int | float) or not isfinite(score):
        return
    document, prompt = row.get("doc"), _prompt(row.get("arguments"))
    asked = (document.get(name) for name in _QUESTIONS) if isinstance(document, Mapping) else ()
    question = next((text for text in asked if isinstance(text, str)), prompt)
    target = row.get("target")
    reference = [str(one) for one in (target if isinstance(target, list) else [target]) if one is not None]
    numbers = {name: value for name, value in row.items() if isinstance(value, int | float) and name != "doc_id"}
    yield {
        **shared,
        "sample_id": str(row.get("doc_id")),
        "sample_hash": _digest(question, reference),
        "interaction_type": "single_turn",
        "input": {"raw": question, "formatted": prompt, "reference": reference},
        "output": {"raw": responses},
        "answer_attribution": [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": answer,
                "extraction_method": f"lm_eval, filter {result.filter}",
                "is_terminal": True,
            }
            for answer in _texts(row.get("filtered_resps"))
        ],
        "evaluation": {"score": float(score), "is_correct": score == 1},
        "metadata": {name: str(value) for name, value in numbers.items() if name != result.metric},
    }


def _texts(given: object) -> list[str]:
    """Return the texts of responses, which may be nested; [] where they are log-likelihoods."""
    if isinstance(given, str):
        return [given]
    return [text for one in given for text in _texts(one)] if isinstance(given, list) else []


def _prompt(arguments: object) -> str:
    """Return the prompt of a row: the first argument of its first request."""
    while isinstance(arguments, Mapping | list) and arguments:
        arguments = next(iter(arguments.values() if isinstance(arguments, Mapping) else arguments))
    return arguments if isinstance(arguments, str) else ""


def _digest(question: str, reference: Sequence[str]) -> str:
    """Return the digest by which the format joins the same question of several models."""
    content = json.dumps({"raw": question, "reference": reference}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode("utf-8", "backslashreplace")).hexdigest()
