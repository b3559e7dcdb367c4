"""The model of a record: the original if it is dense, and one with an id of its own if it was pruned.

Ids have the form `developer/model`. A model that was pruned as it was loaded is published by nobody, least of all by
the developer of the original: it gets OURS as its developer, and the original is named in its details.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lm_eval_pruned.paths import BUNDLED, is_hub_id, without_folders
from lm_eval_pruned.results.eee.fields import known
from lm_eval_pruned.results.records.configuration import Configuration
from lm_eval_pruned.results.records.record import Record
from lm_eval_pruned.results.records.run_settings import model_args, section

OURS, LOCAL, UNKNOWN = "lm-eval-pruned", "local", "unknown"
_NO_PART_OF_AN_ID = re.compile(r"[^A-Za-z0-9._]+")
_DIGITS = 8
# Where the harness's model types run a model; others ask a service, whose model nobody can see.
_ENGINES = {"hf": "transformers", "pruned-hf": "transformers", "vllm": "vllm", "pruned-vllm": "vllm"}
_VERSIONS = {"transformers": "transformers_version", "vllm": "vllm_version"}


class ModelInfo(NamedTuple):
    """The id of a model, and the object `model_info` of its record."""

    id: str
    content: dict[str, object]


def model_info(record: Record, content: Mapping[str, object]) -> ModelInfo:
    """Describe the model of a run.

    Args:
        record: the run.
        content: its results file, in the newest layout.
    """
    config = section(content, "config")
    original = public_id(record.configuration.model)
    identity = _pruned_id(record, config, original) if record.configuration.is_pruned else original
    engine = _ENGINES.get(str(config.get("model")), "")
    version = str(content.get(_VERSIONS.get(engine, "")) or "")
    is_local = original.startswith(f"{LOCAL}/") or not engine
    details = {
        "deployment_type": "self_deployed" if engine else UNKNOWN,
        "model_availability": UNKNOWN if is_local else "open_weights",
        **_loading(config),
        **(_pruning(record, config, original) if record.configuration.is_pruned else {}),
    }
    return ModelInfo(
        identity,
        {
            "name": f"{original.rpartition('/')[2]} · {_label(record.configuration)}",
            "id": identity,
            "developer": identity.partition("/")[0] if "/" in identity else UNKNOWN,
            **known(inference_engine=known(name=engine, version=version if engine else "")),
            "additional_details": details,
        },
    )


def public_id(name: str) -> str:
    """Return the id of a model: its hub id, or its folder's name without the path, which is not to be published.

    Example:
        >>> public_id("Qwen/Qwen3-8B"), public_id("/home/me/checkpoints/mine"), public_id("tiny-reasoner")
        ('Qwen/Qwen3-8B', 'local/mine', 'lm-eval-pruned/tiny-reasoner')
    """
    if name == BUNDLED:
        return f"{OURS}/{BUNDLED}"
    if is_hub_id(name):
        return name
    return f"{LOCAL}/{_slug(Path(name).name) or 'model'}"


def _pruned_id(record: Record, config: Mapping[str, object], original: str) -> str:
    """Return the hub id of a pruned checkpoint, or else one made of the original, the pruning and its digest."""
    loaded = public_id(str(model_args(config).get("pretrained") or ""))
    if loaded != original and "/" in loaded and not loaded.startswith((f"{LOCAL}/", f"{OURS}/")):
        return loaded
    parts = (original.rpartition("/")[2], _slug(_label(record.configuration)), record.fingerprint[:_DIGITS])
    return f"{OURS}/" + "-".join(part for part in parts if part)


def _label(configuration: Configuration) -> str:
    return " ".join(without_folders(word) for word in configuration.words[:3] if word)


def _slug(text: str) -> str:
    return _NO_PART_OF_AN_ID.sub("-", text).strip("-.")


def _loading(config: Mapping[str, object]) -> dict[str, str]:
    names = ("model_num_parameters", "model_dtype", "model_revision", "model_sha")
    return {name.removeprefix("model_"): str(config[name]) for name in names if config.get(name)}


def _pruning(record: Record, config: Mapping[str, object], original: str) -> dict[str, object]:
    report = section(config, "pruning")
    settings = {
        name: without_folders(value) if isinstance(value, str) else value
        for name, value in section(report, "config").items()
    }
    words = record.configuration.words
    target = report.get("target_sparsity")
    return known(
        base_model=original,
        method=words.method,
        allocation=without_folders(words.alloc) or "none",
        target_sparsity="" if target is None else str(target),
        achieved_sparsity="" if record.sparsity is None else str(record.sparsity),
        fingerprint=record.fingerprint,
        pruning_config=settings and json.dumps(settings, sort_keys=True),
    )
