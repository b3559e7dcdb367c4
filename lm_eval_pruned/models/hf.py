"""`pruned-hf`: the harness's Hugging Face model, pruned while it loads and thinking within a budget."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
import transformers
from lm_eval.models.huggingface import HFLM

from lm_eval_pruned.config import parse_model_args
from lm_eval_pruned.errors import DataError
from lm_eval_pruned.models.arguments import accepted_arguments, refuse_adapters
from lm_eval_pruned.models.budgeted import BudgetedLM
from lm_eval_pruned.models.traces import trace_calibration, trace_questions, trace_request
from lm_eval_pruned.pruning.artifacts.report import Stopwatch
from lm_eval_pruned.pruning.artifacts.store import artifacts_folder
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.calibration.source import check_source, is_traces
from lm_eval_pruned.pruning.checkpoint.diagnose import explained
from lm_eval_pruned.pruning.checkpoint.resolve import resolve_pretrained, windows_for
from lm_eval_pruned.pruning.engine import Calibration, prune_model
from lm_eval_pruned.pruning.recipe import resolve
from lm_eval_pruned.reasoning.backends.transformers import TransformersBackend


class PrunedHFLM(BudgetedLM, HFLM):  # type: ignore[misc]
    """The harness's `hf` with our `model_args` added; ordinary requests go to it unchanged.

    Raises:
        PrunedEvalError: an argument is unknown or contradictory, or data it names is out of reach; before any weight
            is loaded.
    """

    def __init__(self, pretrained: str | transformers.PreTrainedModel, **arguments: object) -> None:
        is_name = isinstance(pretrained, str)
        source = resolve_pretrained(pretrained) if isinstance(pretrained, str) else pretrained
        parent = accepted_arguments(HFLM, str(source) if is_name else None, arguments)
        self._settings, self._run, kwargs = parse_model_args(arguments, parent=parent)
        self._recipe = resolve(self._settings)
        check_source(self._recipe.config.calib)
        refuse_adapters(self._settings, kwargs)
        self._check_store()
        self._questions = self._trace_questions(str(source))
        # The parent's own default is "cuda" even where there is none.
        kwargs.setdefault("device", "cuda" if torch.cuda.is_available() else "cpu")
        self._stopwatch = Stopwatch()
        self._windows: Windows | None = None
        revision = str(kwargs.get("revision") or "main")
        with explained(str(source), revision=revision) if is_name else nullcontext():
            super().__init__(pretrained=source, **kwargs)
        if self.prefix_token_id is None:
            raise DataError(
                f"the tokenizer of pretrained={pretrained} has neither a bos nor an eos token, and the harness needs "
                "one of them: add it to tokenizer_config.json, or give prefix_token_id=ID"
            )
        self.thinking = self._thinking_format()
        self.report = prune_model(
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

    @property
    def _template(self) -> str | None:
        template: str | None = self.tokenizer.chat_template
        return template

    def _identity(self) -> Mapping[str, object]:
        backend = self._backend()
        return {
            "backend": "hf",
            "autocast": str(backend.autocast),
            "device": self.device.type,
            "context": backend.context,
            "end_tokens": sorted(backend.end_tokens()),
        }

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
