"""Benchmark tasks under a thinking budget: grade all samples of a question and count tokens and cut-offs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from statistics import fmean

from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask

from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.grading import Kind, grade, verify
from lm_eval_pruned.models.documents import load_documents
from lm_eval_pruned.models.metrics import is_looping, majority, pass_at_k, reported_ks
from lm_eval_pruned.reasoning.completion import Completion

# Metrics that are better when lower: how often something went wrong.
_COSTS = ("budget_hit", "answer_cut", "no_answer", "looping")
# Metrics without a direction. With `thinking=none` the text ends in an end-of-sequence token as it should, and has no
# answer of its own.
_COUNTS = ("thinking_tokens", "answer_tokens", "thinking_eos")


class BudgetedTask(ConfigurableTask):  # type: ignore[misc]
    """The task class that our task files name under `class:`.

    Keys of a task file besides the harness's own: `thinking_token_budget`, which joins the `generation_kwargs`, and in
    `metadata` the `local_data` (stem of the file in LM_EVAL_PRUNED_DATA) and the `answer_kind` (`math` or `choice`).
    `--metadata '{"num_samples": 8}'` draws eight responses to each question.
    """

    def __init__(self, config: Mapping[str, object]) -> None:
        settings = {name: value for name, value in config.items() if name not in ("class", "thinking_token_budget")}
        kwargs = dict(settings.get("generation_kwargs") or {})  # type: ignore[call-overload]
        settings["generation_kwargs"] = {"thinking_token_budget": config["thinking_token_budget"], **kwargs}
        metadata = dict(settings.get("metadata") or {})  # type: ignore[call-overload]
        settings["repeats"] = _num_samples(metadata.get("num_samples", settings.get("repeats", 1)))
        super().__init__(config=settings)

    def download(self, dataset_kwargs: object = None, **_: object) -> None:
        """Load the questions, from LM_EVAL_PRUNED_DATA if it is set."""
        split = self.config.test_split
        documents = load_documents(
            self.config.dataset_path,
            self.config.dataset_name,
            split=split,
            local=self.config.metadata.get("local_data"),
        )
        self.dataset = {split: documents}

    def apply_filters(self) -> list[Instance]:
        """Pass on all samples of a question; the harness's default keeps only the first."""
        for instance in self._instances:
            instance.filtered_resps["none"] = instance.resps
        return list(self._instances)

    def process_results(self, doc: dict[str, object], results: Sequence[Sequence[str]]) -> dict[str, float]:
        """Grade all samples of one question and return its metrics."""
        if "bypass" in self._metric_fn_list:
            return {"bypass": 0.0}
        (responses,) = results
        return question_metrics(str(self.doc_to_target(doc)), responses, kind=self._kind)

    @cached_property
    def _kind(self) -> Kind:
        kind: Kind = self.config.metadata.get("answer_kind", "math")
        return kind

    def aggregation(self) -> dict[str, Callable[[Sequence[float]], float]]:
        """Return how to aggregate each metric: as a mean over questions."""
        return dict.fromkeys(self._metric_names(), mean)

    def higher_is_better(self) -> dict[str, bool]:
        """Return whether each metric is better when higher; without those that are neither better nor worse."""
        return {name: name not in _COSTS for name in self._metric_names() if name not in _COUNTS}

    def _metric_names(self) -> list[str]:
        if "bypass" in self._metric_fn_list:
            return ["bypass"]
        count = self.config.repeats
        of_samples = [*(f"pass@{k}" for k in reported_ks(count)), f"maj@{count}"] if count > 1 else []
        return ["acc", *of_samples, *_COUNTS, *_COSTS]


def question_metrics(gold: str, responses: Sequence[str], *, kind: Kind) -> dict[str, float]:
    """Return the metrics of one question, averaged over its samples.

    The harness's own models return plain strings: they are graded, but have no token counts.
    """
    verdicts = [grade(gold, _answer(response), kind) for response in responses]
    correct = [float(verdict.correct) for verdict in verdicts]
    metrics = {"acc": fmean(correct)}
    count = len(responses)
    if count > 1:
        metrics |= {f"pass@{k}": pass_at_k(count, int(sum(correct)), k) for k in reported_ks(count)}
        extracted = [verdict.extracted for verdict in verdicts]
        winner = majority(extracted, lambda left, right: verify(left, right, kind).correct)
        metrics[f"maj@{count}"] = float(winner is not None and verify(gold, winner, kind).correct)
    completions = [response for response in responses if isinstance(response, Completion)]
    if completions:
        metrics["thinking_tokens"] = fmean(completion.thinking_tokens for completion in completions)
        metrics["answer_tokens"] = fmean(completion.answer_tokens for completion in completions)
        metrics["budget_hit"] = fmean(completion.budget_hit for completion in completions)
        metrics["thinking_eos"] = fmean(completion.thinking_finish == "eos" for completion in completions)
        metrics["answer_cut"] = fmean(completion.answer_cut for completion in completions)
    metrics["no_answer"] = fmean(verdict.status == "no_answer" for verdict in verdicts)
    metrics["looping"] = fmean(any(map(is_looping, _parts(response))) for response in responses)
    return metrics


def _answer(response: str) -> str:
    return response.answer if isinstance(response, Completion) else response


def _parts(response: str) -> tuple[str, ...]:
    """Split a response into its phases: a loop that the budget cut is at the end of the thinking, not of the text."""
    return (response.thinking, response.answer) if isinstance(response, Completion) else (response,)


def _num_samples(given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise ArgumentError(f"num_samples={given!r} in --metadata: give a whole number of at least 1")
    return given
