"""Write everything of a pruned checkpoint but its weights: the config with what changed, and copies of other files."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from huggingface_hub import snapshot_download
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.files import NOT_JSON
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions, checkpoint_folder, read_config

logger = logging.getLogger(__name__)

# Files of weights, in any format: the written ones are others, and these would be those of the dense model.
WEIGHTS = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".onnx_data", ".pdparams"),
    *(".npz", ".ot", ".tflite", ".mlmodel", ".distcp", ".zip", ".tar", ".gz"),
)
# Files that describe weights or a pruning that are not those of the new checkpoint.
OUTDATED = (
    *(".index.json", "pruning_report.json", "allocation.png", "layerif_scores.npy", "sparsities.json", "plan.json"),
    "SHA256SUMS",
    *("adapter_config.json", "quantize_config.json", "quant_config.json", "hf_quant_config.json"),
)
# A card describes the model that it lies beside.
CARD_FILE = "README.md"
# Fields of a config; the last ones are set by loading and say nothing of the model.
QUANTIZATION, TIED = "quantization_config", "tie_word_embeddings"
_INCIDENTAL = ("_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype", QUANTIZATION)


def write_other_files(
    source: str, options: LoadOptions, model: PreTrainedModel, output: Path, *, reshaped: bool
) -> None:
    """Copy what is not weights from a checkpoint to `output`, and write its config.

    Args:
        source: folder or hub id.
        options: how it was loaded.
        model: the pruned model.
        output: folder of the new checkpoint.
        reshaped: whether blocks or channels were taken out, which changes the config.

    Raises:
        MissingDataError: the checkpoint cannot be reached.
        DataError: its config is not JSON.
    """
    folder = source_folder(source, options)
    for path in copied_files(folder):
        target = output / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    try:
        stored: dict[str, object] = json.loads((folder / CONFIG_NAME).read_bytes())
    except NOT_JSON as error:
        raise DataError(f"{folder / CONFIG_NAME} is not JSON ({error})") from None
    changes = _changes(read_config(source, options), model.config, None if reshaped else [TIED])
    content = changed_config(stored, changes, dtype=None if options.dtype == "auto" else options.dtype)
    if getattr(model.config, QUANTIZATION, None) is None:
        content = _without(content, QUANTIZATION)
    (output / CONFIG_NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def source_folder(source: str, options: LoadOptions) -> Path:
    """Return the folder of a checkpoint with all its files but weights; those of a hub id are downloaded."""
    if not Path(source).is_dir():
        try:
            ignored = [f"*{ending}" for ending in WEIGHTS]
            snapshot_download(source, revision=options.revision, ignore_patterns=ignored)
        except (OSError, ValueError) as error:
            # Offline, what was downloaded with the weights is there.
            logger.info("only files of %s that were downloaded before are copied (%s)", source, error)
    return checkpoint_folder(source, revision=options.revision) / options.subfolder


def copied_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a checkpoint that are as true of a pruned one; config and card are written separately."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        is_hidden = any(part.startswith((".", "__")) for part in parts)
        is_outdated = path.name.endswith((*WEIGHTS, *OUTDATED)) or parts in ((CONFIG_NAME,), (CARD_FILE,))
        if path.is_file() and not is_hidden and not is_outdated:
            yield path


def changed_config(
    stored: Mapping[str, object], changes: Mapping[str, object], *, dtype: str | None
) -> dict[str, object]:
    """Return a config with some fields changed, in nested configs as well, and with another dtype if one is given.

    Example:
        >>> changed_config({"layers": 3, "text_config": {"dtype": "float32"}}, {"layers": 2}, dtype="bfloat16")
        {'layers': 2, 'text_config': {'dtype': 'bfloat16'}, 'dtype': 'bfloat16'}
    """
    content = _merged(stored, changes)
    if dtype is None:
        return content
    content = _with_dtype(content, dtype)
    return content if content.keys() & {"dtype", "torch_dtype"} else {**content, "dtype": dtype}


def _with_dtype(content: Mapping[str, object], dtype: str) -> dict[str, object]:
    nested = {name: _with_dtype(value, dtype) for name, value in content.items() if isinstance(value, dict)}
    return {**content, **nested, **dict.fromkeys(content.keys() & {"dtype", "torch_dtype"}, dtype)}


def _without(content: Mapping[str, object], name: str) -> dict[str, object]:
    return {
        field: _without(value, name) if isinstance(value, dict) else value
        for field, value in content.items()
        if field != name
    }


def _merged(stored: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    nested = {
        name: _merged(own, value)
        for name, value in changes.items()
        if isinstance(value, dict) and isinstance(own := stored.get(name), dict) and not _is_numbered(own)
    }
    return {**stored, **changes, **nested}


def _changes(before: PretrainedConfig, after: PretrainedConfig, wanted: Collection[str] | None) -> Mapping[str, object]:
    """Return the wanted fields, or all, in which two configs differ, as they are nested in `before`."""
    if type(before) is type(after):
        return _differences(before.to_dict(), after.to_dict(), wanted)
    # The model is the language model of a multimodal checkpoint, whose config is one of its parts.
    part = next(name for name in before.sub_configs if type(getattr(before, name, None)) is type(after))
    own = _differences(getattr(before, part).to_dict(), after.to_dict(), wanted)
    return {part: own} if own else {}


def _differences(
    before: Mapping[str, object], after: Mapping[str, object], wanted: Collection[str] | None
) -> dict[str, object]:
    changed: dict[str, object] = {}
    for name, value in after.items():
        own = before.get(name)
        if name in _INCIDENTAL or own == value:
            continue
        if isinstance(own, dict) and isinstance(value, dict) and not _is_numbered(own):
            changed[name] = _differences(own, value, wanted)
        elif wanted is None or name in wanted:
            changed[name] = value
    return changed


def _is_numbered(values: Mapping[object, object]) -> bool:
    """Return whether the keys are indices of blocks: where one is missing, its block has nothing of its own."""
    return len(values) > 0 and all(str(key).isdecimal() for key in values)
