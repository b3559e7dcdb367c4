"""Which model a run was of: its path or hub id, and evidence that tells models with the same name apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from lm_eval_pruned.files import sha256_of_json
from lm_eval_pruned.results.records.run_settings import Settings, as_settings, model_args, section

# Where the harness's model types have the name of a model, in its own order, and where they have an adapter of it.
NAMED_BY = ("pretrained", "model", "path", "engine")
_ADAPTERS = ("peft", "delta", "lora_local_path")
# Evidence that says nothing but which results file it was: the model of that run is unknown.
RUN = "run"
# What the harness writes as model_name if model_args name no model. It is drawn after the seed was set: every process
# draws the same.
_RANDOM = re.compile(r"[a-z0-9]{8}")
# The text of an object that was given where a name belongs; models of one architecture have the same.
_OBJECT = re.compile(r"\w\(\n| object at 0x")
# For a model without a config the harness writes the name of its class.
_CLASS = re.compile(r"[A-Z]\w*")
# Model types that read no checkpoint by name, for files of harnesses that do not say whether a type or an object ran.
_TYPES = frozenset({"hf", "hf-auto", "huggingface", "vllm", "pruned-hf", "pruned-vllm", "gguf", "ggml", "dummy"})
_DIGITS = 16
_SHOWN = 8


class Model(NamedTuple):
    """A model's name, and evidence: (name, value) pairs, of which no two runs of one model have different values."""

    name: str
    evidence: Settings


def run_model(content: Mapping[str, object]) -> Model:
    """Return the model of a results file; of a pruned one, and of a checkpoint made from it, the original.

    Evidence is a digest of the dense weights where our models wrote it, the number of parameters, and the commit of the
    hub. A model without a name is known by its weights, or else by nothing, and equal to no other.
    """
    config = section(content, "config")
    report = section(config, "pruning")
    weights = report.get("dense_sha256")
    evidence = {
        "weights": weights[:_DIGITS] if isinstance(weights, str) else None,
        "parameters": _count(report.get("model_weights")) or _count(config.get("model_num_parameters")),
        # The commit changes with any file of a repository: the weights themselves say more.
        "model_sha": None if weights else config.get("model_sha"),
    }
    name = _name(content)
    if not name and weights:
        name = f"unnamed model {str(weights)[:_SHOWN]}"
    elif not name:
        name = f"unnamed model ({backend(content)})"
        evidence = {RUN: sha256_of_json(content)[:_SHOWN]}
    return Model(name, as_settings(evidence))


def backend(content: Mapping[str, object]) -> str:
    """Return the model type of the harness, or `object` if Python code passed a model that was loaded already."""
    given = str(section(content, "config").get("model") or "?")
    return given if _is_type(content, given) else "object"


def _name(content: Mapping[str, object]) -> str:
    config = section(content, "config")
    original = section(section(config, "pruning"), "original").get("pretrained")
    if original:
        return str(original)
    arguments = model_args(config)
    named = next((text for name in NAMED_BY if (text := _text(arguments.get(name)))), "")
    adapters = [text for name in _ADAPTERS if (text := _text(arguments.get(name)))]
    if named:
        return " + ".join([named, *adapters])
    if any(name in arguments for name in NAMED_BY):
        return ""
    loaded = _text(config.get("model"))
    if loaded and not _is_type(content, loaded) and not _CLASS.fullmatch(loaded):
        return loaded
    given = _text(content.get("model_name"))
    return "" if _RANDOM.fullmatch(given) else given


def _is_type(content: Mapping[str, object], given: str) -> bool:
    source = content.get("model_source")
    return given == source or (source is None and (given in _TYPES or bool(model_args(section(content, "config")))))


def _text(value: object) -> str:
    return value if isinstance(value, str) and not _OBJECT.search(value) else ""


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
