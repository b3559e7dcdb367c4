"""Inspect logs: one task of `inspect eval` each, with a result for each score and each way to reduce epochs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.results.limits import MAX_BUDGET
from lm_eval_pruned.results.records.answered import answered_outcomes
from lm_eval_pruned.results.records.checkpoint import Found, find_report
from lm_eval_pruned.results.records.configuration import HARDWARE, other_configuration, report_seeds
from lm_eval_pruned.results.records.inspect_samples import (
    LETTERS,
    FinishedLog,
    load_log,
    reduced_answers,
    score_filter,
)
from lm_eval_pruned.results.records.metrics import is_same
from lm_eval_pruned.results.records.pruned import read_report
from lm_eval_pruned.results.records.record import Record
from lm_eval_pruned.results.records.run_settings import Settings, as_settings, as_text, is_seed
from lm_eval_pruned.results.records.task_result import TaskResult

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalScore
    from inspect_ai.model import ModelConfig

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
# Providers whose model names may be folders; all others call a service.
_FROM_FOLDERS = ("hf", "vllm", "sglang")
_CUT = ("max_tokens", "model_length")


def read_inspect_log(path: Path) -> Record:
    """Read the log of a task that was run to its end.

    Raises:
        MissingPackageError: inspect_ai is not installed.
        DataError: it cannot be read, was not run to its end, or holds no score.
    """
    found = load_log(path)
    log, scores, samples = found
    spec = log.eval
    backend, _, named = spec.model.partition("/")
    # A local model has the name `local`, and its path among the arguments.
    name = str(spec.model_args.get("model_path") or named or spec.model)
    date = datetime.fromisoformat(str(spec.created)).timestamp()
    pruned = find_report(name, date=date) if backend in _FROM_FOLDERS else Found({})
    problems = [pruned.problem] if pruned.problem else []
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
        date=date,
        configuration=other_configuration(
            name,
            pruned.report,
            as_settings(
                {
                    **{key: value for key, value in spec.model_args.items() if key not in _WHERE},
                    "backend": backend,
                    "limit": spec.config.limit or spec.config.sample_id,
                }
            ),
        ),
        seeds=as_text(report_seeds(pruned.report)),
        **read_report(pruned.report)._asdict(),
        results=tuple(results),
        problems=tuple(problems),
    )


def _results(path: Path, found: FinishedLog, score: EvalScore, problems: list[str]) -> Iterator[TaskResult]:
    """Yield the result of a score, or append what is wrong with it to `problems`."""
    given = {name: metric.value for name, metric in score.metrics.items() if metric.value is not None}
    errors = {name: float(value) for name, value in given.items() if name.endswith("stderr") and math.isfinite(value)}
    values = {name: float(value) for name, value in given.items() if name not in errors and math.isfinite(value)}
    chosen = next((name for name in _MEANS if name in values), next(iter(values), None))
    if chosen is None:
        problems.append(f"{path}: the score {score.name} has no metric that is a number")
        return
    outcomes = answered_outcomes(reduced_answers(found, score), path)
    # Other metrics are no mean over the questions, and a scorer may count its letters in another way.
    if outcomes is not None and not is_same(values[chosen], outcomes.mean):
        outcomes = None
    metric = score.name if chosen == "mean" else chosen
    settings, seeds, budget = _asked(found.log)
    task = found.log.eval.task
    yield TaskResult(
        task=task,
        filter=score_filter(score),
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


def _is_lettered(found: FinishedLog, score: EvalScore) -> bool:
    given = [(sample.scores or {}).get(score.scorer) for sample in found.samples]
    return any(one is not None and isinstance(one.value, str) and one.value in LETTERS for one in given)


def _costs(found: FinishedLog) -> dict[str, float]:
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
