"""Check `model_args`: the names that the harness's model class and transformers accept, and adapters to refuse."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from transformers import AutoConfig, PretrainedConfig

from lm_eval_pruned.config import PruneConfig, RunConfig, field_names
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.pruning.checkpoint.resolve import INVALID, unreachable

# Arguments of `from_pretrained` besides the fields of a model's config.
_LOADING = [
    "attn_implementation",
    "cache_dir",
    "code_revision",
    "device_map",
    "experts_implementation",
    "force_download",
    "local_files_only",
    "load_in_4bit",
    "load_in_8bit",
    "bnb_4bit_compute_dtype",
    "bnb_4bit_quant_type",
    "bnb_4bit_use_double_quant",
    "low_cpu_mem_usage",
    "max_memory",
    "proxies",
    "quantization_config",
    "state_dict",
    "token",
    "torch_dtype",
    "use_safetensors",
    "variant",
    "weights_only",
]

# Arguments of the harness's `hf` and `vllm` that add a low-rank adapter.
_ADAPTERS = ("peft", "lora_local_path")


# Arguments of transformers that split every weight over devices.
_TENSOR_PARALLEL = ("tp_plan", "tp_size", "device_mesh")

# Arguments of the harness's `hf` and of transformers that quantise weights while they are loaded.
_QUANTISING = ("load_in_4bit", "load_in_8bit", "quantization_config", "autogptq", "gptqmodel")


def accepted_arguments(model_class: type, pretrained: str | None, given: Iterable[str]) -> set[str]:
    """Return the names of all arguments that the harness's `model_class` and transformers accept.

    The config of the checkpoint is read only if `given` has an unknown name that is not close to a known one: it may be
    a field of the config. For a model that is loaded already (`pretrained` is None) no such field is accepted.

    Raises:
        MissingDataError: the config cannot be read.
    """
    known = {*inspect.signature(model_class).parameters, *_LOADING} - {"args", "kwargs"}
    ours = field_names(PruneConfig) | field_names(RunConfig)
    unknown = set(given) - known - ours
    is_near = any(get_close_matches(name, [*known, *ours], cutoff=0.75) for name in unknown)
    if pretrained is None or not unknown or is_near:
        return known
    try:
        # Without trust_remote_code transformers would ask on the terminal, and run the checkpoint's code after a yes.
        config = AutoConfig.from_pretrained(pretrained, trust_remote_code=False)
    except OSError as error:
        raise unreachable(pretrained, error) from error
    except (ValueError, *INVALID):
        # Loading explains what is wrong with it, or that it needs trust_remote_code.
        return known
    return known | set(config.to_dict())


def peek_config(source: str, arguments: Mapping[str, object]) -> PretrainedConfig | None:
    """Read the config of a checkpoint for early checks; None if it cannot be read, which loading will explain.

    Args:
        source: folder or hub id.
        arguments: `model_args`, of which `revision`, `trust_remote_code`, `token` and the like say how it is read.
    """
    wanted = ("revision", "trust_remote_code", "cache_dir", "token", "local_files_only", "subfolder", "gguf_file")
    # Without trust_remote_code transformers would ask on the terminal.
    options = {"trust_remote_code": False} | {name: arguments[name] for name in wanted if arguments.get(name)}
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(source, **options)
    except (OSError, ValueError, ImportError, *INVALID):
        return None
    return config


def refuse_tensor_parallel(given: Mapping[str, object]) -> None:
    """Raise ArgumentError if transformers would split weights over devices."""
    for name in _TENSOR_PARALLEL:
        if given.get(name):
            raise ArgumentError(
                f"{name}={given[name]} splits every weight over devices, and pruned-hf reads whole weights: use "
                "parallelize=True, which puts whole blocks on each device, or --model pruned-vllm with "
                "tensor_parallel_size=N"
            )


def refuse_adapters(config: PruneConfig, given: Mapping[str, object]) -> None:
    """Raise ArgumentError if weights are to be quantised, or an adapter would be added to those that pruning zeroes."""
    if config.method == "none" and config.masks is None:
        return
    for name in _QUANTISING:
        if given.get(name):
            raise ArgumentError(
                f"{name}={given[name]} quantises the weights while they are loaded, and codes cannot be pruned: leave "
                "it out, or write a pruned checkpoint (`lm-eval-pruned prune`) and load that with method=none"
            )
    for name in _ADAPTERS:
        if given.get(name):
            raise ArgumentError(
                f"{name}={given[name]} would add to the weights that pruning makes zero: merge the adapter into the "
                "model first (merge_and_unload of peft)"
            )
