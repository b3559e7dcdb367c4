"""Kinds of weights that cannot be pruned as they are stored: quantised ones, and low-rank adapters beside a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from transformers import PretrainedConfig
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, AutoHfQuantizer, AutoQuantizationConfig

from lm_eval_pruned.errors import ArgumentError, MissingPackageError, PruningError
from lm_eval_pruned.files import NOT_JSON
from lm_eval_pruned.pruning.checkpoint.resolve import find_file

ADAPTER = "adapter_config.json"
# Quantised weights that transformers multiplies out while it loads them, so that the model is as any other.
DEQUANTISED = ("fp8", "mxfp4")

MERGE = (
    "merge it first (`PeftModel.from_pretrained(model, folder).merge_and_unload().save_pretrained(new)` of peft) and "
    "give the merged model"
)


def quantization_of(config: PretrainedConfig | None) -> Mapping[str, Any] | None:
    """Return how the weights of a checkpoint are quantised, as its config says; None if they are not."""
    for one in (config, config.get_text_config() if config is not None else None):
        found = getattr(one, "quantization_config", None)
        if found:
            return found if isinstance(found, Mapping) else dict(found.to_dict())
    return None


def quantization_kind(quantization: Mapping[str, Any]) -> str:
    """Return the name of a quantisation, as transformers knows it.

    Example:
        >>> quantization_kind({"quant_method": "gptq", "bits": 4}), quantization_kind({"load_in_4bit": True})
        ('gptq', 'bitsandbytes')
    """
    if quantization.get("load_in_4bit") or quantization.get("load_in_8bit"):
        return "bitsandbytes"
    method = quantization.get("quant_method") or quantization.get("quant_algo") or "an unknown method"
    return str(getattr(method, "value", method))


def dequantising(quantization: Mapping[str, Any]) -> object | None:
    """Return the `quantization_config` with which transformers dequantises weights on loading; None if it cannot."""
    if quantization_kind(quantization) not in DEQUANTISED:
        return None
    config = AutoQuantizationConfig.from_dict({**quantization})
    if not hasattr(config, "dequantize"):
        return None
    config.dequantize = True
    return config  # type: ignore[no-any-return]


def check_prunable(quantization: Mapping[str, Any] | None) -> None:
    """Check that weights are numbers and not codes, once they are loaded.

    Raises:
        PruningError: they are quantised, and transformers does not dequantise them.
    """
    if quantization is not None and dequantising(quantization) is None:
        raise PruningError(quantised(quantization))


def quantised(quantization: Mapping[str, Any]) -> str:
    """Say that quantised weights cannot be pruned, and what to do."""
    return (
        f"the model is quantised ({quantization_kind(quantization)}), and what its weights are worth does not show in "
        "their codes: prune the model it was made from (`lm-eval-pruned prune`) and quantise what that writes"
    )


def check_loadable(quantization: Mapping[str, Any] | None) -> None:
    """Check that transformers reads quantised weights, and that the packages are there that it needs.

    Raises:
        PruningError: it does not read them.
        MissingPackageError: a package is missing.
    """
    if quantization is None:
        return
    kind = quantization_kind(quantization)
    known = {name.partition("_")[0] if name.startswith("bitsandbytes") else name for name in AUTO_QUANTIZER_MAPPING}
    if kind not in known or not (quantization.get("quant_method") or kind == "bitsandbytes"):
        raise PruningError(
            f"the model is quantised ({kind}), and this release of transformers cannot load that: give the model it "
            "was made from, or one that is quantised in another format"
        )
    try:
        quantizer = AutoHfQuantizer.from_config({**quantization}, pre_quantized=True)
        quantizer.validate_environment(device_map=None)
    except (ImportError, TypeError, NameError) as error:
        raise MissingPackageError(
            f"the model is quantised ({quantization_kind(quantization)}), and a package that reads it is missing: "
            f"{' '.join(str(error).split())}"
        ) from error


def check_adapter(source: str, *, revision: str, subfolder: str = "", prunes: bool) -> None:
    """Check that a checkpoint is a model of its own, without an adapter that transformers would put on top of it.

    Args:
        source: folder or hub id.
        revision: branch, tag or commit.
        subfolder: folder of the checkpoint inside `source`.
        prunes: whether it is to be pruned; a dense model may have an adapter if peft is installed.

    Raises:
        ArgumentError: there is an adapter, and it would be pruned.
        MissingPackageError: there is an adapter, and without peft it would be ignored.
    """
    path = find_file(source, ADAPTER, revision=revision, subfolder=subfolder)
    if path is None:
        return
    try:
        base = json.loads(path.read_bytes()).get("base_model_name_or_path")
    except (*NOT_JSON, AttributeError):
        base = None
    of = f" of {base}" if base else ""
    if prunes:
        raise ArgumentError(
            f"pretrained={source} holds an adapter{of} ({ADAPTER}), which would add to the weights that pruning makes "
            f"zero: {MERGE}"
        )
    if find_spec("peft") is None:
        raise MissingPackageError(
            f"pretrained={source} holds an adapter{of} ({ADAPTER}), which without peft would be ignored: pip install "
            f"peft, or {MERGE}"
        )
