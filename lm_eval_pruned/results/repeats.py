"""Runs and samples that repeat a response instead of drawing another: seeds without effect, and greedy decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lm_eval_pruned.results.records.run_settings import Settings
from lm_eval_pruned.results.records.task_result import TaskResult

# The mean of these over all responses, to all its digits, tells responses apart where samples were not written.
_MEASURED = ("thinking_tokens", "answer_tokens")
_TEMPERATURES = ("temperature", "temperature_thinking")


class Seeded(NamedTuple):
    """A result and the seeds it was made with."""

    seeds: Settings
    result: TaskResult


def distinct(results: Sequence[Seeded]) -> list[TaskResult]:
    """Return the results of one configuration on one task, oldest first, leaving out those that a later one repeats."""
    return [
        one.result for index, one in enumerate(results) if not any(_same(one, other) for other in results[index + 1 :])
    ]


def note(repeats: int, settings: Settings) -> str:
    """Describe the runs and samples of a measurement that repeat a response of another; empty if none does.

    Example:
        >>> note(2, ())
        '2 more runs under other seeds gave the same responses'
        >>> note(0, (("num_samples", "4"),))
        'the 4 samples of a greedy response are one'
    """
    runs = "1 more run under another seed" if repeats == 1 else f"{repeats} more runs under other seeds"
    samples = dict(settings).get("num_samples")
    parts = [
        *([f"{runs} gave the same responses"] if repeats else []),
        *([f"the {samples} samples of a greedy response are one"] if samples and is_greedy(settings) else []),
    ]
    return "; ".join(parts)


def is_greedy(settings: Settings) -> bool:
    """Whether decoding is deterministic: no temperature above 0 and no `do_sample`, as by default.

    Example:
        >>> is_greedy(()), is_greedy((("temperature", "0.6"),)), is_greedy((("do_sample", "true"),))
        (True, False, False)
    """
    given = dict(settings)
    says_no = given.get("do_sample", "").lower() == "false"
    is_warm = any(given.get(name, "0") not in ("0", "0.0") for name in _TEMPERATURES)
    return says_no or not (is_warm or given.get("do_sample", "").lower() == "true")


def _same(first: Seeded, second: Seeded) -> bool:
    """Whether two results come from the same responses.

    Responses are compared where the samples have them: equal outcomes alone may be chance. Otherwise all metrics have
    to be equal, and either they include a mean number of tokens, or decoding is greedy and neither the weights nor the
    prompts depend on the seeds that differ.
    """
    one, other = first.result, second.result
    if one.outcomes is not None and other.outcomes is not None:
        same_questions = np.array_equal(one.outcomes.questions, other.outcomes.questions)
        if not same_questions or not np.array_equal(one.outcomes.correct, other.outcomes.correct):
            return False
        if one.outcomes.responses is not None and other.outcomes.responses is not None:
            return one.outcomes.responses == other.outcomes.responses
    if one.metrics != other.metrics or one.errors != other.errors:
        return False
    differing = {name for name, _ in set(first.seeds) ^ set(second.seeds)}
    has_shots = dict(one.settings).get("num_fewshot", "0") != "0"
    is_decided = "calib_seed" in differing or ("fewshot_seed" in differing and has_shots)
    return any(one.metrics.get(name) for name in _MEASURED) or (is_greedy(one.settings) and not is_decided)
