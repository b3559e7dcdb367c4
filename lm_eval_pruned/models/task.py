"""Benchmark tasks under a thinking budget: grade all samples of a question and count tokens and cut-offs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from statistics import fmean

from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean

from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.grading import Kind, Verdict, grade, verify
from lm_eval_pruned.models.before_loading import (
    CACHE_REQUESTS,
    GENERATED_OPTIONS,
    check_metadata,
    check_samples,
    count_samples,
)
from lm_eval_pruned.models.documents import load_documents
from lm_eval_pruned.models.metrics import majority, pass_at_k, reported_ks
from lm_eval_pruned.models.prompt import before_question
from lm_eval_pruned.models.repetition import loop_onset, repeated_ngrams
from lm_eval_pruned.models.supported import KNOWN_HARNESSES, not_enforced
from lm_eval_pruned.reasoning.completion import Completion
from lm_eval_pruned.reasoning.settings import parse_gen_kwargs

try:
    from lm_eval.api.task import GenerateTask as HarnessTask
except ImportError:
    # lm-eval before 0.5
    from lm_eval.api.task import ConfigurableTask as HarnessTask

# Keys of a task file that the harness does not know, or that say how it should grade, which our tasks do themselves.
# `_qualified_name` is lm-eval 0.5's: a member of a group would be named "tts::aime24_tts_512", and not as elsewhere.
_NOT_PASSED_ON = ("class", "thinking_token_budget", "metric_list", "filter_list", "_qualified_name")

# Metrics that are better when lower: how often something went wrong.
_COSTS = ("budget_hit", "answer_cut", "no_answer", "looping", "rep-2", "rep-3")
# Metrics without a direction. With `thinking=none` the text ends in an end-of-sequence token as it should, and has no
# answer of its own.
_COUNTS = ("thinking_tokens", "answer_tokens", "thinking_eos")


class Extracted(str):
    """The answer extracted from a response ("" if it gives none), which the harness stores with the response.

    `response` is the response itself, and `verdict` what grading it gave.
    """

    __slots__ = ("response", "verdict")

    response: Completion
    verdict: Verdict

    @classmethod
    def build(cls, gold: str, response: Completion | Extracted, kind: Kind) -> Extracted:
        """Grade a response, unless that is done, and extract the answer that is compared with the gold answer."""
        if isinstance(response, Extracted):
            return response
        verdict = grade(gold, response.answer, kind, finished=not response.answer_cut)
        extracted = cls(verdict.extracted or "")
        extracted.response, extracted.verdict = response, verdict
        return extracted


class BudgetedTask(HarnessTask):  # type: ignore[misc]
    """The task class that our task files name under `class:`.

    Keys of a task file besides the harness's own: `thinking_token_budget`, which joins the `generation_kwargs`, and in
    `metadata` the `local_data` (stem of the file in LM_EVAL_PRUNED_DATA) and the `answer_kind` (`math`, `choice`,
    `brackets`). `--metadata '{"num_samples": 8}'` draws eight responses to each question, `'{"examples": 4}'` puts four
    solved questions in front of each generated one, and `form` is how generated arithmetic is written. `metric_list`
    and `filter_list` have no effect: the metrics are those of `question_metrics`.
    """

    _only_predicts = False

    def __init__(self, config: Mapping[str, object]) -> None:
        settings = {name: value for name, value in config.items() if name not in _NOT_PASSED_ON}
        kwargs = dict(settings.get("generation_kwargs") or {})  # type: ignore[call-overload]
        settings["generation_kwargs"] = {"thinking_token_budget": config["thinking_token_budget"], **kwargs}
        metadata = dict(settings.get("metadata") or {})  # type: ignore[call-overload]
        check_metadata(metadata)
        settings["repeats"] = count_samples(metadata.get("num_samples", settings.get("repeats", 1)))
        super().__init__(config=settings)

    def download(self, dataset_kwargs: object = None, **_: object) -> None:
        """Load the questions, from LM_EVAL_PRUNED_DATA if it is set."""
        split = self.config.test_split
        documents = load_documents(
            self.config.dataset_path,
            self.config.dataset_name,
            split=split,
            local=self.config.metadata.get("local_data"),
            **{name: self.config.metadata[name] for name in GENERATED_OPTIONS if name in self.config.metadata},
        )
        self.dataset = {split: documents}

    def override_metric(self, metric_name: str) -> None:
        """Leave grading out under `--predict_only`, for which the harness asks for the metric `bypass`."""
        self._only_predicts = metric_name == "bypass"
        super().override_metric(metric_name)

    def set_repeats(self, repeats: object) -> None:
        """Draw as many responses to each question as the harness's `repeats` says (lm-eval 0.5)."""
        super().set_repeats(count_samples(repeats))
        self.config.metadata["num_samples"] = repeats

    def doc_iterator(
        self, *, rank: int = 0, limit: int | None = None, world_size: int = 1, samples: Sequence[int] | None = None
    ) -> Iterator[tuple[int, object]]:
        """Yield number and question of those that this process asks; chosen ones (`--samples`) are numbered anew.

        lm-eval 0.5.0.dev1 numbers chosen questions by their places in the benchmark, which it then looks up in the list
        of the chosen ones.
        """
        if not samples:
            numbered: Iterator[tuple[int, object]] = super().doc_iterator(rank=rank, limit=limit, world_size=world_size)
            return numbered
        documents = self.eval_docs
        chosen = [documents[index] for index in sorted(samples)]
        return islice(enumerate(chosen), rank, None, world_size)

    def doc_to_target(self, doc: dict[str, object], doc_to_target: object = None) -> str:
        """Return the answer as it is written; the harness would make a number of digits (25 of 025), a list of [1]."""
        return str(self.doc_to_text(doc, doc_to_target or self.config.doc_to_target))

    def build_all_requests(self, **arguments: object) -> None:
        """Build the requests, never from the harness's cache of them, with instructions apart from the questions.

        Raises:
            ArgumentError: that cache was asked for, or several samples of greedy decoding.
        """
        if arguments.get("cache_requests") and not arguments.get("rewrite_requests_cache"):
            raise ArgumentError(CACHE_REQUESTS)
        if self.config.repeats > 1:
            check_samples(parse_gen_kwargs(self.config.generation_kwargs), self.config.repeats)
        if not arguments.get("apply_chat_template"):
            # The harness joins these to the question as they are.
            instruction, description = arguments.get("system_instruction"), self.config.description
            arguments["system_instruction"] = instruction and before_question(str(instruction))
            if isinstance(description, str):
                self.config.description = before_question(description)
        super().build_all_requests(**arguments)

    def apply_filters(self) -> list[Instance]:
        """Extract the answers of all samples of a question; the harness's default keeps only the first sample."""
        for instance in self._instances:
            gold = self.doc_to_target(instance.doc)
            instance.filtered_resps["none"] = [
                Extracted.build(gold, one, self._kind) if isinstance(one, Completion) else one for one in instance.resps
            ]
        return list(self._instances)

    def process_results(self, doc: dict[str, object], results: Sequence[object]) -> dict[str, float]:
        """Grade all samples of one question and return its metrics.

        Raises:
            ArgumentError: a response is not one of a model that enforces the budget.
        """
        if self._only_predicts:
            return {"bypass": 0.0}
        responses = responses_of(results, count=self.config.repeats, task=self.config.task)
        return question_metrics(self.doc_to_target(doc), responses, kind=self._kind)

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
        if self._only_predicts:
            return ["bypass"]
        count = self.config.repeats
        of_samples = [*(f"pass@{k}" for k in reported_ks(count)), f"maj@{count}"] if count > 1 else []
        return ["acc", *of_samples, "loop_onset", *_COUNTS, *_COSTS]


def responses_of(results: Sequence[object], *, count: int, task: str) -> list[Completion | Extracted]:
    """Return the `count` responses to one question.

    lm-eval 0.5 hands over the responses, and before it one list of them for each request. With several processes the
    harness asks some questions more often than `count`, to keep all of them busy.

    Raises:
        ArgumentError: there are too few, or one of them does not come from a model that enforces the budget.
    """
    given = [one for item in results for one in (item if isinstance(item, list) else [item])]
    responses = [one for one in given if isinstance(one, Completion | Extracted)]
    if len(responses) < len(given):
        raise ArgumentError(not_enforced([task], "the model that gave these responses"))
    if len(responses) < count:
        raise ArgumentError(
            f"the harness handed over {len(responses)} responses to a question of {task}, and {count} were asked for: "
            f"use a version of lm-eval that this package knows ({KNOWN_HARNESSES})"
        )
    return responses[:count]


def question_metrics(gold: str, samples: Sequence[Completion | Extracted], *, kind: Kind) -> dict[str, float]:
    """Return the metrics of one question, averaged over its samples."""
    graded = [Extracted.build(gold, sample, kind) for sample in samples]
    responses, verdicts = [one.response for one in graded], [one.verdict for one in graded]
    correct = [float(verdict.correct) for verdict in verdicts]
    metrics = {"acc": fmean(correct)}
    count = len(responses)
    if count > 1:
        metrics |= {f"pass@{k}": pass_at_k(count, int(sum(correct)), k) for k in reported_ks(count)}
        extracted = [verdict.extracted for verdict in verdicts]
        winner = majority(extracted, lambda left, right: verify(left, right, kind).correct)
        metrics[f"maj@{count}"] = float(winner is not None and verify(gold, winner, kind).correct)
    metrics["thinking_tokens"] = fmean(response.thinking_tokens for response in responses)
    metrics["answer_tokens"] = fmean(response.answer_tokens for response in responses)
    metrics["budget_hit"] = fmean(response.budget_hit for response in responses)
    metrics["thinking_eos"] = fmean(response.thinking_finish == "eos" for response in responses)
    metrics["answer_cut"] = fmean(response.answer_cut for response in responses)
    metrics["no_answer"] = fmean(verdict.status == "no_answer" for verdict in verdicts)
    phases = [(response.thinking, response.answer) for response in responses]
    onsets = [loop_onset(one) for one in phases]
    metrics["loop_onset"] = fmean(onsets)
    metrics["looping"] = fmean(onset < 1 for onset in onsets)
    metrics |= {f"rep-{n}": fmean(repeated_ngrams(one, n) for one in phases) for n in (2, 3)}
    return metrics
