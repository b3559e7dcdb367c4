"""Mixin for the harness's model classes: budgeted requests, the response store, and the pruning report in results."""

from __future__ import annotations

import json
import logging
from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval.api.instance import Instance

from lm_eval_pruned.config import RunConfig
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.models.before_loading import USE_CACHE
from lm_eval_pruned.models.prompt import as_user_turn
from lm_eval_pruned.pruning.artifacts.report import PruneReport
from lm_eval_pruned.pruning.checkpoint.note import reported
from lm_eval_pruned.reasoning.budget import complete
from lm_eval_pruned.reasoning.completion import Completion
from lm_eval_pruned.reasoning.detection import choose_format
from lm_eval_pruned.reasoning.formats import ThinkingFormat
from lm_eval_pruned.reasoning.misfit import describe_closed, describe_misfit
from lm_eval_pruned.reasoning.preparing import PreparedRequest, Request, prepare
from lm_eval_pruned.reasoning.requests import Backend
from lm_eval_pruned.reasoning.response_store import ResponseStore, check_store
from lm_eval_pruned.reasoning.settings import is_budgeted, parse_gen_kwargs

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from lm_eval.api.model import TemplateLM as Harness
else:
    Harness = object


class BudgetedLM(Harness):  # type: ignore[misc]
    """Mixin for a model class of the harness: answers requests with a thinking budget and passes on all others.

    Attributes:
        report: the pruning report.
        thinking: the thinking format.
    """

    report: PruneReport
    thinking: ThinkingFormat
    _run: RunConfig
    # Of the checkpoint, where `lm-eval-pruned prune` wrote it.
    _note: Mapping[str, object] | None = None
    _has_warned_of_template = False
    _sampling_seeds: frozenset[int] = frozenset()

    @abstractmethod
    def _backend(self, *, is_quiet: bool = False) -> Backend:
        """Return the inference backend."""

    @abstractmethod
    def _identity(self) -> Mapping[str, object]:
        """Return what decides a text besides the request and the pruned weights, as JSON values."""

    @property
    @abstractmethod
    def _template(self) -> str | None:
        """The chat template."""

    def get_model_info(self) -> dict[str, object]:
        """Add to the model information in the harness's results what it does not know.

        `sampling_seeds` are the seeds that decided sampled texts, which `--seed` does not; none where all were greedy.
        """
        parent: Callable[[], dict[str, Any]] = getattr(super(), "get_model_info", dict)
        return {
            **parent(),
            "pruning": reported(self.report, self._note),
            "thinking": self.thinking.name,
            "sampling_seeds": sorted(self._sampling_seeds),
        }

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer budgeted requests in two phases and all others as the harness does."""
        by_kwargs: dict[str, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            gen_kwargs = request.args[1]
            by_kwargs[json.dumps(gen_kwargs, sort_keys=True) if is_budgeted(gen_kwargs) else ""].append(index)
        plain = by_kwargs.pop("", [])
        backend = self._backend(is_quiet=disable_tqdm or self.rank != 0)
        prepared = [self._prepare(backend, [requests[index] for index in indices]) for indices in by_kwargs.values()]
        self._warn_of(describe_closed([request.opening for ones in prepared for request in ones]))
        results: dict[int, str] = {}
        if plain:
            texts = super().generate_until([requests[index] for index in plain], disable_tqdm=disable_tqdm)
            results.update(zip(plain, texts, strict=True))
        with self._responses() if prepared else nullcontext() as responses:
            completed = complete(backend, prepared, share=self._run.share_traces, responses=responses)
        for indices, completions in zip(by_kwargs.values(), completed, strict=True):
            results.update(zip(indices, completions, strict=True))
        by_markers: dict[ThinkingFormat, list[Completion]] = defaultdict(list)
        for ones, completions in zip(prepared, completed, strict=True):
            by_markers[ones[0].markers] += completions
        for markers, completions in by_markers.items():
            self._warn_of(describe_misfit(completions, markers))
        return [results[index] for index in range(len(requests))]

    def _warn_of(self, fault: str | None) -> None:
        if fault and self.rank == 0:
            logger.warning("%s", fault)

    def set_cache_hook(self, cache_hook: object) -> None:
        """Refuse `--use_cache`, which would report the responses of one model as those of another.

        Raises:
            ArgumentError: always.
        """
        del cache_hook
        raise ArgumentError(USE_CACHE)

    def _check_store(self) -> None:
        """Check before any weight is loaded that responses can be stored."""
        if self._store:
            check_store(self._store)

    @property
    def _store(self) -> Path | None:
        return None if self._run.responses == "off" else Path(self._run.responses).expanduser()

    def _responses(self) -> AbstractContextManager[ResponseStore | None]:
        """Open the response store for this model, identified by its pruning and by `_identity`."""
        if self._store is None:
            return nullcontext()
        return ResponseStore.open(self._store, {"pruning": self.report.fingerprint, **self._identity()})

    def _thinking_format(self) -> ThinkingFormat:
        chosen = choose_format(self._run.thinking, self._template, self.apply_chat_template)
        logger.info("thinking=%s: %s (%s)", self._run.thinking, chosen.name, chosen.summary)
        return chosen

    def _prepare(self, backend: Backend, requests: list[Instance]) -> list[PreparedRequest]:
        """Prepare requests with the same kwargs; a prompt that comes n times gets n different samples."""
        settings = parse_gen_kwargs(requests[0].args[1])
        self._sampling_seeds |= {settings.sampling.seed} if settings.is_sampled else set()
        numbered, seen = [], Counter[str]()
        for request in requests:
            prompt = self._templated(request.args[0])
            numbered.append(Request(prompt, sample=seen[prompt]))
            seen[prompt] += 1
        prepared = prepare(backend, numbered, settings, self.thinking)
        for request, asked in zip(requests, numbered, strict=True):
            # The harness stores the arguments with the response, which begins with the opening that follows the prompt:
            # joined, they are the text that the model saw and wrote.
            request.arguments = (asked.prompt, *request.arguments[1:])
        return prepared

    def _templated(self, prompt: str) -> str:
        """Return the prompt in the chat template, unless that is turned off or has been done."""
        if not (self._run.auto_chat_template and self._template):
            return prompt
        templated = as_user_turn(prompt, self.apply_chat_template)
        if templated != prompt and not self._has_warned_of_template:
            logger.warning("prompts go through the model's chat template; auto_chat_template=False leaves them bare")
            self._has_warned_of_template = True
        return templated
