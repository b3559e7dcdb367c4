"""`pruned-hf`: the harness's Hugging Face model, pruned while it loads and thinking within a budget."""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from lm_eval_pruned.config import parse_model_args
from lm_eval_pruned.errors import ArgumentError, PrunedEvalError
from lm_eval_pruned.models.arguments import OURS, accepted_arguments
from lm_eval_pruned.models.prompt import as_user_turn
from lm_eval_pruned.models.traces import trace_calibration, trace_questions, trace_request
from lm_eval_pruned.pruning.activations import Windows
from lm_eval_pruned.pruning.artifact import artifacts_folder
from lm_eval_pruned.pruning.calibration import check_source, is_traces
from lm_eval_pruned.pruning.checkpoint import resolve_pretrained, unreachable, windows_for
from lm_eval_pruned.pruning.engine import Calibration, prune_model
from lm_eval_pruned.pruning.recipe import resolve
from lm_eval_pruned.pruning.report import PruneReport, Stopwatch
from lm_eval_pruned.reasoning.budget import Prepared, Request, complete, prepare
from lm_eval_pruned.reasoning.decode import TransformersBackend
from lm_eval_pruned.reasoning.formats import ThinkingFormat, choose_format
from lm_eval_pruned.reasoning.responses import ResponseStore, check_store
from lm_eval_pruned.reasoning.settings import is_budgeted, parse_gen_kwargs

logger = logging.getLogger(__name__)


class PrunedHFLM(HFLM):  # type: ignore[misc]
    """The harness's `hf` with our `model_args` added; ordinary requests go to it unchanged.

    Raises:
        PrunedEvalError: an argument is unknown or contradictory, or data it names is out of reach; before any weight
            is loaded.
    """

    def __init__(self, pretrained: str | transformers.PreTrainedModel, **arguments: object) -> None:
        is_name = isinstance(pretrained, str)
        source = resolve_pretrained(pretrained) if isinstance(pretrained, str) else pretrained
        parent = accepted_arguments(HFLM, str(source), set(arguments) - OURS) if is_name else set(arguments)
        self._settings, self._run, kwargs = parse_model_args(arguments, parent=parent)
        self._recipe = resolve(self._settings)
        check_source(self._recipe.config.calib)
        self._store = None if self._run.responses == "off" else Path(self._run.responses).expanduser()
        if self._store:
            check_store(self._store)
        self._questions = self._trace_questions(str(source))
        # The parent's own default is "cuda" even where there is none.
        kwargs.setdefault("device", "cuda" if torch.cuda.is_available() else "cpu")
        self._stopwatch = Stopwatch()
        self._windows: Windows | None = None
        try:
            super().__init__(pretrained=source, **kwargs)
        except PrunedEvalError:
            raise
        except OSError as error:
            raise unreachable(str(pretrained), error) from error
        self.thinking = self._thinking_format()
        self._said_templated = False
        self.report: PruneReport = prune_model(
            self.model,
            self._settings,
            self._calibration(str(source)),
            artifacts=artifacts_folder(self._run.artifacts),
            stopwatch=self._stopwatch,
        )
        self._windows = None

    def _create_model(self, pretrained: str, *args: object, **kwargs: object) -> None:
        """Load the calibration text before the weights: a missing file should not cost the loading of a large model."""
        with self._stopwatch.phase("calibrate"):
            self._windows = self._text_windows(pretrained)
        with self._stopwatch.phase("load"):
            super()._create_model(pretrained, *args, **kwargs)

    def _trace_questions(self, source: str) -> list[str]:
        calib = self._recipe.config.calib
        if calib is None or not is_traces(calib) or not self._recipe.needs_calibration:
            return []
        return trace_questions(calib, source)

    def _text_windows(self, source: str) -> Windows | None:
        if not self._recipe.needs_calibration or self._questions:
            return None
        return windows_for(self._recipe.config, source, self.config, self.tokenizer)

    def _calibration(self, source: str) -> Windows | Calibration | None:
        """Return the windows, or, of traces, what writes them with the dense model if they are needed."""
        if not self._questions:
            # A model that was given as an object, and not loaded here, has none yet.
            return self._text_windows(source) if self._windows is None else self._windows
        request = trace_request(self._settings, self._questions, self.thinking, self._templated)
        return trace_calibration(self._backend(), request)

    def _thinking_format(self) -> ThinkingFormat:
        found = choose_format(self._run.thinking, self.tokenizer.chat_template)
        logger.info("thinking=%s: %s (%s)", self._run.thinking, found.name, found.summary)
        return found

    def get_model_info(self) -> dict[str, object]:
        """Add the pruning report and the thinking format to what the harness writes into its results."""
        return {**super().get_model_info(), "pruning": self.report.as_dict(), "thinking": self.thinking.name}

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer budgeted requests in two phases and all others as the harness does."""
        groups: dict[str, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            gen_kwargs = request.args[1]
            groups[json.dumps(gen_kwargs, sort_keys=True) if is_budgeted(gen_kwargs) else ""].append(index)
        plain = groups.pop("", [])
        backend = self._backend(is_quiet=disable_tqdm or self.rank != 0)
        prepared = [self._prepare(backend, [requests[index] for index in group]) for group in groups.values()]
        results: dict[int, str] = {}
        if plain:
            texts = super().generate_until([requests[index] for index in plain], disable_tqdm=disable_tqdm)
            results.update(zip(plain, texts, strict=True))
        with self._responses(backend) if prepared else nullcontext() as responses:
            completed = complete(backend, prepared, share=self._run.share_traces, responses=responses)
        for group, completions in zip(groups.values(), completed, strict=True):
            results.update(zip(group, completions, strict=True))
        return [results[index] for index in range(len(requests))]

    def set_cache_hook(self, cache_hook: object) -> None:
        """Refuse `--use_cache`: it would report the answers of one model as those of another.

        Raises:
            ArgumentError: always.
        """
        del cache_hook
        raise ArgumentError(
            "--use_cache finds an answer by its request and not by the model that gave it: leave it out, and add "
            "responses=DIR to --model_args, which knows the model, the pruning and the sample"
        )

    def _responses(self, backend: TransformersBackend) -> AbstractContextManager[ResponseStore | None]:
        """Open the response store for this model: its pruning, and what else of it decides a text."""
        if self._store is None:
            return nullcontext()
        identity = {
            "backend": "hf",
            "pruning": self.report.fingerprint,
            "autocast": str(backend.autocast),
            "device": self.device.type,
            "context": backend.context,
            "end_tokens": sorted(backend.end_tokens()),
        }
        return ResponseStore.open(self._store, identity)

    def _prepare(self, backend: TransformersBackend, requests: list[Instance]) -> Prepared:
        """Check requests that share their kwargs; a prompt that comes n times gets n different samples."""
        settings = parse_gen_kwargs(requests[0].args[1])
        wanted, seen = [], Counter[str]()
        for request in requests:
            prompt = self._templated(request.args[0])
            wanted.append(Request(prompt, sample=seen[prompt]))
            seen[prompt] += 1
        return prepare(backend, wanted, settings, self.thinking)

    def _templated(self, prompt: str) -> str:
        if not (self._run.auto_chat_template and self.tokenizer.chat_template):
            return prompt
        templated = as_user_turn(prompt, self.apply_chat_template)
        if templated != prompt and not self._said_templated:
            logger.warning("prompts go through the model's chat template; auto_chat_template=False leaves them bare")
            self._said_templated = True
        return templated

    def _backend(self, *, is_quiet: bool = False) -> TransformersBackend:
        return TransformersBackend(
            model=self.model,
            tokenizer=self.tokenizer,
            encode_text=self.tok_encode,
            context=self.max_length,
            batch_size=None if self.batch_size == "auto" else int(self.batch_size),
            max_batch_size=self.max_batch_size,
            autocast=self.mixed_precision_dtype,
            is_quiet=is_quiet,
        )
