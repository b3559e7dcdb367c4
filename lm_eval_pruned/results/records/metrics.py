"""Metrics of a task: which one is compared, whether more of it is better, and whether its rows average to it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from math import isclose

# The metric compared is the first of these that a task has, or else its first metric. The last is that of crows_pairs,
# whose first metric, a difference of likelihoods, has no scale.
ACCURACIES = ("acc", "exact_match", "pass@1", "prompt_level_strict_acc", "acc_norm", "f1")
_PREFERRED = (*ACCURACIES, "pct_stereotype")
# What a response cost, and what --predict_only writes in place of every metric: never compared.
_NOT_COMPARED = frozenset(
    {
        *("thinking_tokens", "answer_tokens", "budget_hit", "thinking_eos", "answer_cut", "no_answer"),
        *("looping", "loop_onset", "rep-2", "rep-3"),
        "bypass",
    }
)
# Directions of metrics whose names are the same everywhere, for files that state none, as of older harnesses.
# A name that is used with both meanings, such as `score`, must not be here.
_HIGHER = re.compile(
    r"(?:\w+_)?acc|acc_(?:norm|norm_nospace|mutual_info|bytes|all)|accuracy|exact_match|exact|em|(?:\w+_)?f1|mcc|"
    r"precision|recall|(?:sacre)?bleu|chrf|bleurt|rouge(?:1|2|L|Lsum)|(?:pass|maj)(?:@|_at_)\w+|mc[12]|math_verify|mrr|"
    r"multiple_choice_grade"
)
_LOWER = re.compile(
    r"(?:\w+_)?perplexity|ppl|bits_per_byte|wer|cer|ter|brier_score|(?:\w+_)?loss|nll|pct_stereotype|"
    r"(?:\w+_)?(?:edit|levenshtein)_distance|(?:\w+_)?error_rate|mae|r?mse",
)
# Metrics of the harness whose rows hold what they are computed from and not their own values.
_NOT_MEANS = re.compile(r"(?:\w+_)?perplexity|ppl|bits_per_byte|mcc|bleu|chrf|ter|brier_score")
RATE, _PERPLEXITY = "bits_per_byte", re.compile(r"(?:word|byte)_perplexity")
# Figures are written with all digits; this is for those that are summed in another order.
_RELATIVE, _ABSOLUTE = 1e-4, 1e-6
# A metric that is a Python function is written as its source or its representation.
_FUNCTION = re.compile(r"(?:def|<function) (\w+)")


def row_metric(metrics: Collection[str], compared: str) -> str:
    """Return the metric whose values the rows of a task hold: for a perplexity the `bits_per_byte` next to it, if any.

    Bits per byte are the logarithm of a perplexity, a mean over documents, and do not depend on the tokenizer.

    Example:
        >>> row_metric(["word_perplexity", "bits_per_byte"], "word_perplexity"), row_metric(["f1", "acc"], "acc")
        ('bits_per_byte', 'acc')
    """
    return RATE if RATE in metrics and _PERPLEXITY.fullmatch(compared) else compared


def compared_metric(metrics: Collection[str]) -> str | None:
    """Return the metric of a task that runs are compared by; None if it has only costs, or was not scored.

    Example:
        >>> compared_metric(["acc_norm", "acc"]), compared_metric(["bleu_max", "bleu_acc"]), compared_metric(["bypass"])
        ('acc', 'bleu_max', None)
    """
    candidates = [metric for metric in metrics if metric not in _NOT_COMPARED]
    return next((metric for metric in _PREFERRED if metric in candidates), next(iter(candidates), None))


def stated_direction(content: Mapping[str, object], task: str, metric: str) -> bool | None:
    """Return what a results file says of a task's metric, True if higher is better; None if it says nothing."""
    match content.get("higher_is_better"):
        case {**tasks} if isinstance(by_metric := tasks.get(task), Mapping):
            stated = by_metric.get(metric)
            if isinstance(stated, bool):
                return stated
    entries = [entry.get("higher_is_better") for entry in _entries(content, task, metric)]
    return next((stated for stated in entries if isinstance(stated, bool)), None)


def direction(metric: str, stated: Iterable[bool | None]) -> bool | None:
    """Return whether higher is better, from what files say, or else from the metric's name; None if nobody knows.

    Files that contradict one another say nothing.

    Example:
        >>> direction("toxicity", [None, False]), direction("wer", []), direction("score", [True, False])
        (False, False, None)
    """
    said = {one for one in stated if one is not None}
    if len(said) == 1:
        return said.pop()
    if _HIGHER.fullmatch(metric):
        return True
    return False if _LOWER.fullmatch(metric) else None


def is_row_mean(content: Mapping[str, object], task: str, metric: str, *, reported: float, mean: float) -> bool:
    """Whether the rows of a samples file hold the metric itself, given the mean over them and the reported metric.

    The rows of a perplexity hold log-likelihoods: their mean is another quantity, with the opposite direction.
    """
    if is_same(reported, mean):
        return True
    aggregations = [entry.get("aggregation") for entry in _entries(content, task, metric)]
    aggregation = next((one for one in aggregations if isinstance(one, str)), None)
    if aggregation is None:
        return not _NOT_MEANS.fullmatch(metric)
    return aggregation == "mean" or bool(_FUNCTION.match(aggregation))


def is_same(reported: float, mean: float) -> bool:
    """Whether a reported metric is the mean over its rows, but for rounding."""
    return isclose(reported, mean, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)


def _entries(content: Mapping[str, object], task: str, metric: str) -> Iterator[Mapping[str, object]]:
    """Yield the entries of a metric in the configuration of a task."""
    match content.get("configs"):
        case {**configs} if isinstance(config := configs.get(task), Mapping):
            listed = config.get("metric_list")
            for entry in listed if isinstance(listed, list) else ():
                if isinstance(entry, Mapping) and _name(entry.get("metric")) == metric:
                    yield entry


def _name(metric: object) -> object:
    function = _FUNCTION.match(metric) if isinstance(metric, str) else None
    return function[1] if function else metric
