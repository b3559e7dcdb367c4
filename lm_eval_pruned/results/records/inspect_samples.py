"""Samples of Inspect logs: the questions under each score, with one value for all epochs of a question."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from lm_eval_pruned.errors import DataError, MissingPackageError
from lm_eval_pruned.results.records.answered import Answered, question_key

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample, EvalScore

INSTALL = "pip install 'lm-eval-pruned[inspect]'"
_JSON_LOG = re.compile(rb'\s*\{\s*"version"\s*:\s*\d+\s*,\s*"status"\s*:\s*"')
# Most of a log is the course of each sample, event by event.
_UNREAD = frozenset(
    {"attachments", "error_retries", "events", "events_data", "files", "messages", "metadata", "setup", "store"}
)
# What scorers write instead of numbers: correct, partially correct, incorrect, no answer.
LETTERS: Mapping[object, float] = MappingProxyType({"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0})


class FinishedLog(NamedTuple):
    """The log of a run that was finished, its scores, and its samples, none where they were not logged."""

    log: EvalLog
    scores: list[EvalScore]
    samples: list[EvalSample]


def is_inspect_log(path: Path, head: bytes) -> bool:
    """Whether a file is an Inspect log, by its name or how it begins.

    Example:
        >>> is_inspect_log(Path("a.eval"), b""), is_inspect_log(Path("a.json"), b'{"version": 2, "status": "success"')
        (True, True)
    """
    return path.suffix == ".eval" or _JSON_LOG.match(head) is not None


def load_log(path: Path) -> FinishedLog:
    """Read a log, without the course of its samples.

    Raises:
        MissingPackageError: inspect_ai is not installed.
        DataError: it cannot be read, was not run to its end, or holds no score.
    """
    try:
        from inspect_ai.log import read_eval_log
    except ImportError:
        raise MissingPackageError(f"{path} is a log of Inspect, which inspect_ai reads: {INSTALL}") from None
    try:
        log = read_eval_log(str(path.absolute()), exclude_fields=set(_UNREAD))
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror}") from None
    # Its parsers of zip files, Zstandard and JSON have exceptions of their own, without a common class.
    except Exception as problem:
        reason = " ".join(str(problem).split())
        raise DataError(
            f"{path} is cut short or not a log of Inspect ({type(problem).__name__}: {reason:.100})"
        ) from None
    if log.status != "success":
        asked = (log.eval.dataset.samples or 0) * (log.eval.config.epochs or 1)
        raise DataError(
            f"{path} is of a run that was not finished (status {log.status}, {len(log.samples or ())} of {asked} "
            "samples): inspect eval-retry goes on with it"
        )
    if log.invalidated:
        raise DataError(f"{path} has samples that were invalidated: inspect eval-retry answers them anew")
    if log.results is None:
        raise DataError(f"{path} holds no score: inspect score gives it some")
    return FinishedLog(log, log.results.scores, log.samples or [])


def inspect_answers(path: Path, filter_name: str) -> Iterator[Answered]:
    """Yield the questions under one score, which is named as the filter of its result is.

    Raises:
        DataError: the log cannot be read.
    """
    found = load_log(path)
    for score in found.scores:
        if score_filter(score) == filter_name:
            yield from reduced_answers(found, score)


def score_filter(score: EvalScore) -> str:
    """Name a score: a scorer may give several, each of them reduced over epochs in several ways."""
    name = score.name if score.name == score.scorer else f"{score.scorer} {score.name}"
    return name if score.reducer in (None, "mean") else f"{name} {score.reducer}"


def reduced_answers(found: FinishedLog, score: EvalScore) -> Iterator[Answered]:
    """Yield the questions that have a value, reduced over their epochs as the score is."""
    samples: dict[object, list[EvalSample]] = {}
    for sample in found.samples:
        samples.setdefault(sample.id, []).append(sample)
    for reduced in found.log.reductions or ():
        if (reduced.scorer, reduced.reducer) != (score.scorer, score.reducer):
            continue
        for one in reduced.samples:
            value = one.value.get(score.name) if isinstance(one.value, Mapping) else one.value
            number = LETTERS.get(value, value) if isinstance(value, str) else value
            # Not a number stands for a sample that was not scored.
            if one.sample_id not in samples or not isinstance(number, int | float) or math.isnan(number):
                continue
            epochs = samples[one.sample_id]
            question, target = _question(epochs[0]), epochs[0].target
            golds = [target] if isinstance(target, str) else target
            given = (epochs[0].scores or {}).get(score.scorer)
            yield Answered(
                key=question_key(question, golds, epochs[0].choices or [], _pictures(epochs[0])),
                value=float(number),
                question=question,
                gold=" or ".join(golds),
                responses=[_response(sample) for sample in epochs],
                answer=(given.answer if given else None) or "",
            )


def _question(sample: EvalSample) -> str:
    """Return the question; without the ids of its messages, which every run draws anew."""
    if isinstance(sample.input, str):
        return sample.input
    if len(sample.input) == 1:
        return str(sample.input[0].text)
    return "\n\n".join(f"{message.role}: {message.text}" for message in sample.input)


def _pictures(sample: EvalSample) -> list[object]:
    """Return the parts of a question that are not text."""
    contents = [] if isinstance(sample.input, str) else [message.content for message in sample.input]
    parts = [part for content in contents if not isinstance(content, str) for part in content]
    return [part.model_dump(mode="json", exclude_none=True) for part in parts if part.type != "text"]


def _response(sample: EvalSample) -> str:
    """Return what the model wrote last, thinking included."""
    if not sample.output.choices:
        return ""
    content = sample.output.choices[0].message.content
    if isinstance(content, str):
        return content
    parts = [
        f"<think>{part.reasoning}</think>" if part.type == "reasoning" else str(getattr(part, "text", ""))
        for part in content
    ]
    return "\n".join(parts)
