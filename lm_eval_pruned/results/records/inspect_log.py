"""Inspect logs: one task of `inspect eval` each, with a result for each score and each way to reduce epochs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lm_eval_pruned.errors import DataError, MissingPackageError
from lm_eval_pruned.results.limits import MAX_BUDGET
from lm_eval_pruned.results.records.answered import Answered, answered_outcomes, question_key
from lm_eval_pruned.results.records.configuration import HARDWARE, Configuration
from lm_eval_pruned.results.records.metrics import is_same
from lm_eval_pruned.results.records.record import Record, TaskResult
from lm_eval_pruned.results.records.run_settings import Settings, as_settings, as_text, is_seed

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample, EvalScore
    from inspect_ai.model import ModelConfig

INSTALL = "pip install 'lm-eval-pruned[inspect]'"
_JSON_LOG = re.compile(rb'\s*\{\s*"version"\s*:\s*\d+\s*,\s*"status"\s*:\s*"')
# Most of a log is the course of each sample, event by event.
_UNREAD = frozenset(
    {"attachments", "error_retries", "events", "events_data", "files", "messages", "metadata", "setup", "store"}
)
# Fields of a generation's configuration that decide how it is asked for, and not what is answered.
_TRANSPORT = frozenset(
    {
        *("max_retries", "timeout", "attempt_timeout", "max_connections", "adaptive_connections", "batch"),
        *("cache", "cache_prompt", "extra_headers", "logprobs", "top_logprobs", "reasoning_summary", "max_tool_output"),
    }
)
_WHERE = HARDWARE | {"model_path", "device_map", "port", "host"}
# Metrics that are a mean over the questions. `mean` does not say of what: it is called by the score's name.
_MEANS = ("accuracy", "mean")
# What scorers write instead of numbers: correct, partially correct, incorrect, no answer.
_LETTERS: Mapping[object, float] = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
_CUT = ("max_tokens", "model_length")


class _Finished(NamedTuple):
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


def read_inspect_log(path: Path) -> Record:
    """Read the log of a task that was run to its end.

    Raises:
        MissingPackageError: inspect_ai is not installed.
        DataError: it cannot be read, was not run to its end, or holds no score.
    """
    found = _load(path)
    log, scores, samples = found
    spec = log.eval
    backend, _, name = spec.model.partition("/")
    problems: list[str] = []
    results = [result for score in scores for result in _results(path, found, score, problems)]
    if not results:
        raise DataError(problems[0] if problems else f"{path} holds no score: give its task a scorer, or inspect score")
    known = {sample.id for sample in samples}
    scored = {one.sample_id for reduced in log.reductions or () for one in reduced.samples}
    if log.eval.config.log_samples is not False and (lost := len(scored - known)):
        problems.append(f"{lost} of the {len(scored)} scored samples, which {path} lacks")
    if failed := sum(sample.error is not None for sample in samples):
        problems.append(f"{failed} of the {len(samples)} samples in {path}, which ended in an error")
    return Record(
        path=path,
        date=datetime.fromisoformat(str(spec.created)).timestamp(),
        configuration=Configuration(
            # A local model has the name `local`, and its path among the arguments.
            model=str(spec.model_args.get("model_path") or name or spec.model),
            pruning=(),
            settings=as_settings(
                {
                    **{key: value for key, value in spec.model_args.items() if key not in _WHERE},
                    "backend": backend,
                    "limit": spec.config.limit or spec.config.sample_id,
                }
            ),
        ),
        seeds=(),
        sparsity=None,
        blocks=(),
        results=tuple(results),
        problems=tuple(problems),
    )


def inspect_answers(path: Path, filter_name: str) -> Iterator[Answered]:
    """Yield the questions under one score, which is named as the filter of its result is.

    Raises:
        DataError: the log cannot be read.
    """
    found = _load(path)
    for score in found.scores:
        if _filter(score) == filter_name:
            yield from _answered(found, score)


def _load(path: Path) -> _Finished:
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
    return _Finished(log, log.results.scores, log.samples or [])


def _results(path: Path, found: _Finished, score: EvalScore, problems: list[str]) -> Iterator[TaskResult]:
    """Yield the result of a score, or append what is wrong with it to `problems`."""
    given = {name: metric.value for name, metric in score.metrics.items() if metric.value is not None}
    errors = {name: float(value) for name, value in given.items() if name.endswith("stderr") and math.isfinite(value)}
    values = {name: float(value) for name, value in given.items() if name not in errors and math.isfinite(value)}
    chosen = next((name for name in _MEANS if name in values), next(iter(values), None))
    if chosen is None:
        problems.append(f"{path}: the score {score.name} has no metric that is a number")
        return
    outcomes = answered_outcomes(_answered(found, score), path)
    # Other metrics are no mean over the questions, and a scorer may count its letters in another way.
    if outcomes is not None and not is_same(values[chosen], float(outcomes.correct.mean())):
        outcomes = None
    metric = score.name if chosen == "mean" else chosen
    settings, seeds, budget = _asked(found.log)
    task = found.log.eval.task
    yield TaskResult(
        task=task,
        filter=_filter(score),
        benchmark=task,
        budget=budget,
        metric=metric,
        # Who writes "correct" says what is better.
        higher_is_better=True if _is_lettered(found, score) else None,
        settings=settings,
        seeds=seeds,
        metrics={metric: values.pop(chosen), **values, **_costs(found)},
        errors={metric: errors["stderr"]} if "stderr" in errors else {},
        outcomes=outcomes,
        questions=_scored(found.log, score) if outcomes is None else len(outcomes.questions),
    )


def _scored(log: EvalLog, score: EvalScore) -> int | None:
    """Return the number of questions behind a score, None if unknown; a run may ask a part of its data set."""
    # Versions that do not count them under the score count the responses of all epochs.
    completed = log.results.completed_samples if log.results else 0
    counted = score.scored_samples
    return (completed // (log.eval.config.epochs or 1) if counted is None else counted) or None


def _asked(log: EvalLog) -> tuple[Settings, Settings, int | None]:
    """Return how the task was asked: settings, seeds, and the budget of thinking tokens."""
    base, given = (config.model_dump(exclude_none=True) for config in (log.eval.model_generate_config, log.plan.config))
    decoding = {name: value for name, value in {**base, **given}.items() if name not in _TRANSPORT}
    budget = decoding.pop("reasoning_tokens", None)
    settings = {
        **decoding,
        "solver": [[step.solver, step.params_passed] if step.params_passed else step.solver for step in log.plan.steps],
        "task_args": log.eval.task_args_passed,
        "epochs": log.eval.config.epochs if log.eval.config.epochs != 1 else None,
        # Other models that answer or grade.
        "model_roles": {role: _models(one) for role, one in (log.eval.model_roles or {}).items()},
    }
    seeds = as_text({name: value for name, value in decoding.items() if is_seed(name)})
    return as_settings(settings), seeds, budget if budget is not None and 0 <= budget <= MAX_BUDGET else None


def _models(given: ModelConfig | list[ModelConfig]) -> list[str]:
    return [one.model for one in (given if isinstance(given, list) else [given])]


def _is_lettered(found: _Finished, score: EvalScore) -> bool:
    given = [(sample.scores or {}).get(score.scorer) for sample in found.samples]
    return any(one is not None and isinstance(one.value, str) and one.value in _LETTERS for one in given)


def _filter(score: EvalScore) -> str:
    """Name a score: a scorer may give several, each of them reduced over epochs in several ways."""
    name = score.name if score.name == score.scorer else f"{score.scorer} {score.name}"
    return name if score.reducer in (None, "mean") else f"{name} {score.reducer}"


def _answered(found: _Finished, score: EvalScore) -> Iterator[Answered]:
    """Yield the questions that have a value, reduced over their epochs as the score is."""
    samples: dict[object, list[EvalSample]] = {}
    for sample in found.samples:
        samples.setdefault(sample.id, []).append(sample)
    for reduced in found.log.reductions or ():
        if (reduced.scorer, reduced.reducer) != (score.scorer, score.reducer):
            continue
        for one in reduced.samples:
            value = one.value.get(score.name) if isinstance(one.value, Mapping) else one.value
            number = _LETTERS.get(value, value) if isinstance(value, str) else value
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


def _costs(found: _Finished) -> dict[str, float]:
    """Return the mean number of thinking tokens, and the share of responses that were cut, where all samples know."""
    samples = [sample for sample in found.samples if sample.error is None]
    usages = [list(sample.model_usage.values()) for sample in samples]
    thought = [sum(usage.reasoning_tokens or 0 for usage in one) for one in usages]
    is_counted = all(any(usage.reasoning_tokens is not None for usage in one) for one in usages)
    reasons = [sample.output.stop_reason for sample in samples if sample.output.choices]
    costs = {}
    if samples and is_counted:
        costs["thinking_tokens"] = sum(thought) / len(samples)
    if reasons and len(reasons) == len(samples) and "unknown" not in reasons:
        costs["answer_cut"] = sum(reason in _CUT for reason in reasons) / len(reasons)
    return costs
