"""`pruned-hf`: the harness's Hugging Face model class, with pruning at load time and thinking budgets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
import transformers
from lm_eval.models.huggingface import HFLM

from lm_eval_pruned.config import RunConfig
from lm_eval_pruned.errors import DataError
from lm_eval_pruned.model_args import parse_model_args
from lm_eval_pruned.models.arguments import accepted_arguments, peek_config, refuse_adapters, refuse_tensor_parallel
from lm_eval_pruned.models.before_loading import Limits, class_without_cache, context_of, names_of_transformers
from lm_eval_pruned.models.budgeted import BudgetedLM
from lm_eval_pruned.models.checkpoint_checks import check_attention, check_checkpoint, check_weights
from lm_eval_pruned.models.traces import read_questions, trace_calibration, trace_request
from lm_eval_pruned.process_memory import use_expandable_segments
from lm_eval_pruned.pruning.artifacts.report import Stopwatch
from lm_eval_pruned.pruning.artifacts.store import artifacts_folder
from lm_eval_pruned.pruning.calibration.calibration import Calibration
from lm_eval_pruned.pruning.calibration.source import CheckpointInfo, Traces
from lm_eval_pruned.pruning.checkpoint.diagnose import explained
from lm_eval_pruned.pruning.checkpoint.load import CheckedLoader
from lm_eval_pruned.pruning.checkpoint.note import read_note
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions, auto_class, check_gguf, resolve_pretrained
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.fit import check_fits
from lm_eval_pruned.pruning.recipe import Recipe, resolve
from lm_eval_pruned.reasoning.backends.transformers import TransformersBackend
from lm_eval_pruned.reasoning.sampling import NOISE

# Arguments with which weights are read from other files, or from another place.
OTHER_FILES = frozenset({"state_dict", "use_safetensors", "variant", "cache_dir", "token", "autogptq", "gptqmodel"})


class PrunedHFLM(BudgetedLM, HFLM):  # type: ignore[misc]
    """The harness's `hf` with our `model_args` added; ordinary requests go to it unchanged.

    Raises:
        PrunedEvalError: an argument is unknown or contradictory, or data it names is out of reach; before any weight
            is loaded.
    """

    def __init__(self, pretrained: str | transformers.PreTrainedModel = "", **arguments: object) -> None:
        is_name = isinstance(pretrained, str)
        use_expandable_segments()
        source, recipe, self._run, kwargs = _read(pretrained, arguments)
        self._source = recipe.calibration_source(str(source))
        self._source.check()
        refuse_adapters(recipe.config, kwargs)
        refuse_tensor_parallel(kwargs)
        self._check_store()
        self._prunes = recipe.method is not None
        if is_name:
            _check_files(str(source), kwargs, prunes=self._prunes)
        questions = read_questions(self._source)
        # The default of the parent is "cuda" even on machines without a GPU.
        kwargs.setdefault("device", "cuda" if torch.cuda.is_available() else "cpu")
        self._stopwatch = Stopwatch()
        self._calibration: Calibration | None = None
        self._load(pretrained, source, kwargs)
        # Traces need the loaded model, and a model given as an object was not loaded by `_create_model`.
        calibration = self._calibration or self._source.windows(self._checkpoint_info(questions))
        self.report = prune_model(
            self.model,
            recipe,
            calibration,
            artifacts=artifacts_folder(self._run.artifacts),
            stopwatch=self._stopwatch,
        )
        self._calibration = None
        if is_name and recipe.method is None:
            self._note = read_note(str(source), kwargs)

    def _load(self, given: object, source: str | transformers.PreTrainedModel, kwargs: dict[str, object]) -> None:
        revision = str(kwargs.get("revision") or "main")
        with explained(source, revision=revision) if isinstance(source, str) else nullcontext():
            super().__init__(pretrained=source, **kwargs)
        if self.prefix_token_id is None:
            raise DataError(
                f"the tokenizer of pretrained={given} has neither a bos nor an eos token, and the harness needs one of "
                "them: add it to tokenizer_config.json, or give prefix_token_id=ID"
            )
        self.thinking = self._thinking_format()

    @classmethod
    def limits(cls, pretrained: str | transformers.PreTrainedModel = "", **arguments: object) -> Limits:
        """Return what a model with these `model_args` allows, without loading it; raises as the constructor."""
        source, _, _, kwargs = _read(pretrained, arguments)
        config = peek_config(source, kwargs) if isinstance(source, str) else source.config
        return Limits(
            context=context_of(config, kwargs),
            names=cls.generator_names(),
            without_cache=class_without_cache(config),
        )

    @classmethod
    def generator_names(cls) -> Collection[str]:
        """Return the generation kwargs that transformers knows."""
        return names_of_transformers()

    def _create_model(self, pretrained: str, *args: object, **kwargs: object) -> None:
        """Load the model after the calibration text: a missing file should not cost the loading of a large model."""
        if not self._source.needs_model:
            with self._stopwatch.phase("calibrate"):
                self._calibration = self._source.windows(CheckpointInfo.of(self.config, self.tokenizer))
        # The harness loads with this class; what it lacks, transformers would fill with random numbers.
        chosen = auto_class(self.config)
        self.AUTO_MODEL_CLASS: object = CheckedLoader(chosen, self._prunes)
        with self._stopwatch.phase("load"):
            super()._create_model(pretrained, *args, **kwargs)
        self.AUTO_MODEL_CLASS = chosen

    def _checkpoint_info(self, questions: Sequence[str]) -> CheckpointInfo:
        def generate(traces: Traces) -> Calibration:
            return trace_calibration(self._backend(), trace_request(traces, questions, self.thinking, self._templated))

        return CheckpointInfo.of(self.config, self.tokenizer, generate)

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
            "noise": NOISE,
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


def _check_files(source: str, arguments: Mapping[str, object], *, prunes: bool) -> None:
    """Check the files of a checkpoint before any weight is loaded."""
    if arguments.get("gguf_file"):
        check_gguf(source, str(arguments["gguf_file"]))
        return
    options = LoadOptions(
        revision=str(arguments.get("revision") or "main"),
        trust_remote_code=arguments.get("trust_remote_code") is True,
        subfolder=str(arguments.get("subfolder") or ""),
        local_files_only=arguments.get("local_files_only") is True,
    )
    check_attention(str(arguments.get("attn_implementation") or ""))
    check_checkpoint(source, options, prunes=prunes)
    with explained(source, revision=options.revision):
        if not arguments.keys() & OTHER_FILES:
            check_weights(source, options)


class _Read(NamedTuple):
    source: str | transformers.PreTrainedModel
    recipe: Recipe
    run: RunConfig
    parent: dict[str, object]


def _read(pretrained: str | transformers.PreTrainedModel, arguments: Mapping[str, object]) -> _Read:
    """Read and check `model_args`, and the recipe against the config of the checkpoint."""
    source = resolve_pretrained(pretrained) if isinstance(pretrained, str) else pretrained
    name = source if isinstance(source, str) else None
    settings, run, kwargs = parse_model_args(arguments, parent=accepted_arguments(HFLM, name, arguments))
    recipe = resolve(settings)
    config = getattr(source, "config", None) if name is None else peek_config(name, kwargs)
    if config is not None:
        check_fits(recipe, config, dtype=str(kwargs.get("dtype", "auto")))
    return _Read(source, recipe, run, kwargs)
