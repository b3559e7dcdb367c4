"""The model class of `pruned-vllm`: the harness's vLLM, with pruning at load time and thinking budgets."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import weakref
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from transformers import GenerationConfig, PretrainedConfig

from lm_eval_pruned.config import PruneConfig, RunConfig
from lm_eval_pruned.errors import ArgumentError, EngineError
from lm_eval_pruned.model_args import parse_model_args
from lm_eval_pruned.models.arguments import accepted_arguments, peek_config, refuse_adapters
from lm_eval_pruned.models.before_loading import Limits, context_of
from lm_eval_pruned.models.budgeted import BudgetedLM
from lm_eval_pruned.models.checkpoint_checks import check_checkpoint
from lm_eval_pruned.models.vllm.compatibility import harness_class
from lm_eval_pruned.models.vllm.prepare import prepare
from lm_eval_pruned.models.vllm.prepare_process import Job
from lm_eval_pruned.pruning.artifacts.report import PruneReport
from lm_eval_pruned.pruning.artifacts.store import artifacts_folder
from lm_eval_pruned.pruning.checkpoint.note import read_note
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions, resolve_pretrained
from lm_eval_pruned.pruning.fit import check_fits
from lm_eval_pruned.pruning.recipe import resolve
from lm_eval_pruned.reasoning.backends.vllm import VLLMBackend
from lm_eval_pruned.reasoning.stopping import end_tokens

if TYPE_CHECKING:
    VLLM = Any
else:
    VLLM = harness_class()

from vllm import EngineArgs, SamplingParams, envs
from vllm.platforms import current_platform

from lm_eval_pruned.models.vllm.loader import KEY, LOAD_FORMAT, Loading

logger = logging.getLogger(__name__)

# The name of the entry point in pyproject.toml.
PLUGIN = "lm_eval_pruned"

# Load formats whose tensors have the names of the transformers model that was pruned.
READABLE = ("auto", "hf", "safetensors", "fastsafetensors")

# Arguments that the harness passes to every model class and its vLLM class does not pass on.
HARNESS = frozenset({"device", "swap_space"})

# Arguments of the engine that do not influence the generated texts.
CAPACITY = frozenset(
    {
        "model",
        "tokenizer",
        "load_format",
        "model_loader_extra_config",
        "tensor_parallel_size",
        "max_model_len",
        "max_num_seqs",
        "max_num_batched_tokens",
        "gpu_memory_utilization",
        "enforce_eager",
        "disable_log_stats",
        "seed",
    }
)


class PrunedVLLM(BudgetedLM, VLLM):  # type: ignore[misc]
    """The harness's `vllm` with our `model_args` added; ordinary requests go to it unchanged.

    Raises:
        PrunedEvalError: an argument is unknown or contradictory, data it names is out of reach, or vLLM does not start.
    """

    def __init__(self, pretrained: str = "", **arguments: object) -> None:
        source, settings, self._run, kwargs = _read(pretrained, arguments)
        refuse_adapters(settings, kwargs)
        load_format = _readable(str(kwargs.get("load_format", "hf")))
        job = Job.of(
            source,
            settings,
            artifacts=str(artifacts_folder(self._run.artifacts) or self._temporary_folder()),
            thinking=self._run.thinking,
            options=LoadOptions(
                dtype=str(kwargs.get("dtype", "auto")),
                device="cuda" if current_platform.is_cuda_alike() else "cpu",
                revision=str(kwargs.get("revision") or "main"),
                trust_remote_code=kwargs.get("trust_remote_code") is True,
            ),
        )
        check_checkpoint(source, job.options, prunes=job.recipe.method is not None)
        job.recipe.calibration_source(source).check()
        self._check_store()
        prepared = prepare(job)
        self.report = PruneReport.from_dict(prepared.report)
        if job.recipe.method is None:
            self._note = read_note(source, kwargs)
        if prepared.artifact:
            kwargs["model_loader_extra_config"] = {
                **cast("dict[str, object]", kwargs.get("model_loader_extra_config") or {}),
                KEY: Loading(artifact=prepared.artifact, load_format=load_format),
            }
            kwargs["load_format"] = LOAD_FORMAT
        if current_platform.is_cpu():
            # Between two chunks of a prompt, vLLM rewinds the generator of a seeded request, which fails on a CPU.
            kwargs.setdefault("enable_chunked_prefill", False)
        try:
            super().__init__(pretrained=prepared.pretrained, **kwargs)
        except (RuntimeError, ValueError) as error:
            raise EngineError(_advice(error)) from error
        generation = _generation_config(prepared.pretrained, self._config, kwargs)
        self._end_tokens = end_tokens(self.tokenizer, generation, self._config, self._config.get_text_config())
        self.thinking = self._thinking_format()

    @classmethod
    def limits(cls, pretrained: str = "", **arguments: object) -> Limits:
        """Return what a model with these `model_args` allows, without loading it; raises as the constructor."""
        source, _, _, kwargs = _read(pretrained, arguments)
        return Limits(
            context=context_of(peek_config(source, kwargs), kwargs, is_vllm=True), names=cls.generator_names()
        )

    @classmethod
    def generator_names(cls) -> Collection[str]:
        """Return the generation kwargs that vLLM knows."""
        return set(SamplingParams.__struct_fields__)

    def _temporary_folder(self) -> Path:
        """Make a folder that is deleted with this object: the engine reads the artifact from one, cache or not."""
        folder = mkdtemp(prefix="lm_eval_pruned-")
        self._folder = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    @property
    def _template(self) -> str | None:
        template: str | None = self.hf_chat_template or self.tokenizer.chat_template
        return template

    def _identity(self) -> Mapping[str, object]:
        engine = {name: str(value) for name, value in sorted(self.model_args.items()) if name not in CAPACITY}
        return {
            "backend": "vllm",
            "engine": engine,
            "device": current_platform.device_type,
            "context": self.max_length,
            "end_tokens": sorted(self._end_tokens),
        }

    def _backend(self, *, is_quiet: bool = False) -> VLLMBackend:
        engine = self.model.llm_engine if self.data_parallel_size <= 1 else None
        return VLLMBackend(
            engine=engine,
            max_num_seqs=engine.vllm_config.scheduler_config.max_num_seqs if engine else 0,
            generate=lambda prompts, params: self._model_generate(prompts, generate=True, sampling_params=params),
            tokenizer=self.tokenizer,
            encode_text=self.tok_encode,
            context=self.max_length,
            end_tokens=self._end_tokens,
            lora=self.lora_request,
            is_quiet=is_quiet,
        )


class _Read(NamedTuple):
    source: str
    settings: PruneConfig
    run: RunConfig
    parent: dict[str, object]


def _read(pretrained: str, arguments: Mapping[str, object]) -> _Read:
    """Read and check `model_args`, and the recipe against the config of the checkpoint."""
    source, arguments = _located(resolve_pretrained(pretrained), arguments)
    fields = HARNESS | {field.name for field in dataclasses.fields(EngineArgs)}
    known = fields | accepted_arguments(VLLM, source, set(arguments) - fields)
    settings, run, kwargs = parse_model_args(arguments, parent=known)
    recipe, config = resolve(settings), peek_config(source, kwargs)
    if config is not None:
        check_fits(recipe, config, dtype=str(kwargs.get("dtype", "auto")))
    if recipe.method is not None:
        _check_plugins(envs.VLLM_PLUGINS)
    return _Read(source, settings, run, kwargs)


def _check_plugins(allowed: Sequence[str] | None) -> None:
    """Refuse a list of vLLM plug-ins without ours, which registers `load_format=pruned`; None allows all plug-ins.

    Raises:
        ArgumentError: ours is not in the list.
    """
    if allowed is not None and PLUGIN not in allowed:
        given = ",".join(allowed)
        raise ArgumentError(
            f"VLLM_PLUGINS={given} leaves out the plug-in that prunes while vLLM reads the weights: set "
            f"VLLM_PLUGINS={','.join(filter(None, (given, PLUGIN)))}, or unset it"
        )


def _located(source: str, arguments: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
    """Return the folder of the checkpoint, and the arguments without `subfolder`, which vLLM does not have.

    Raises:
        ArgumentError: a subfolder of a hub id.
        MissingDataError: there is no such folder.
    """
    rest = {name: value for name, value in arguments.items() if name != "subfolder"}
    inside = arguments.get("subfolder")
    if not inside:
        return source, rest
    if not Path(source).is_dir():
        raise ArgumentError(
            f"subfolder={inside} of the hub id {source} is out of vLLM's reach: download it (hf download {source} "
            f'--include "{inside}/*" --local-dir FOLDER) and give pretrained=FOLDER/{inside}'
        )
    return resolve_pretrained(str(Path(source, str(inside)).absolute())), rest


def _readable(load_format: str) -> str:
    """Return the format in which vLLM reads the checkpoint.

    Raises:
        ArgumentError: it reads the weights under other names, or does not read them at all.
    """
    if load_format not in READABLE:
        raise ArgumentError(
            f"load_format={load_format} cannot be pruned while it loads: leave it out, or give one of "
            f"{', '.join(READABLE)}"
        )
    return load_format


def _generation_config(pretrained: str, config: PretrainedConfig, kwargs: Mapping[str, object]) -> GenerationConfig:
    """Return the generation config that transformers would give the model."""
    try:
        return GenerationConfig.from_pretrained(pretrained, revision=str(kwargs.get("revision") or "main"))
    except OSError:
        return GenerationConfig.from_model_config(config)


def _advice(error: Exception) -> str:
    reason = " ".join(str(error).split())
    return (
        f"vLLM does not start ({reason}): its own lines above say why. Where memory is short, lower max_model_len, "
        "max_num_seqs or gpu_memory_utilization (on a CPU the environment variable VLLM_CPU_KVCACHE_SPACE, in GiB)"
    )
