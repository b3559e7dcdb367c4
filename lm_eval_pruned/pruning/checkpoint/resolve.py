"""Find and load checkpoints: which one `pretrained` means, its files, and the loaded model with its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import CONFIG_NAME
from transformers.utils.hub import cached_file

from lm_eval_pruned.errors import ArgumentError, DataError, MissingDataError, MissingPackageError
from lm_eval_pruned.paths import BUNDLED, bundled_folder, is_there

GGUF = ".gguf"
# What transformers raises for a config with a field of a wrong type or value, apart from ValueError.
INVALID = (StrictDataclassError, TypeError, AttributeError, LookupError)
# What the error of transformers names for a checkpoint with code of its own.
REMOTE = "trust_remote_code"
# Number of names that an error shows.
SHOWN = 3
# What looking for a file raises; before transformers 5 also for a name that cannot be a hub id.
UNREACHABLE = (OSError, HFValidationError)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How a checkpoint is loaded.

    Attributes:
        dtype: name of a dtype of PyTorch, or `auto` for that of the checkpoint.
        device: device that weights are loaded to.
        revision: branch, tag or commit of a hub id.
        trust_remote_code: whether code that comes with the checkpoint may run.
        local_files_only: do not ask the hub.
        subfolder: folder of the checkpoint inside `source`, which may hold several.
        dequantise: whether quantised weights that transformers can dequantise are.
    """

    dtype: str = "auto"
    device: str = "cpu"
    revision: str = "main"
    trust_remote_code: bool = False
    local_files_only: bool = False
    subfolder: str = ""
    dequantise: bool = False

    def for_transformers(self) -> dict[str, object]:
        """Return the keyword arguments that every `from_pretrained` of transformers takes."""
        offline = {"local_files_only": True} if self.local_files_only else {}
        inside = {"subfolder": self.subfolder} if self.subfolder else {}
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code, **offline, **inside}

    def torch_dtype(self, stored: torch.dtype) -> torch.dtype:
        """Return the dtype of loaded weights, given that of the checkpoint."""
        dtype: torch.dtype = stored if self.dtype == "auto" else getattr(torch, self.dtype)
        return dtype


def resolve_pretrained(pretrained: str) -> str:
    """Return the folder of the bundled model, or `pretrained` itself if it can exist.

    Raises:
        ArgumentError: it is empty, or a GGUF file.
        MissingDataError: it is a path on this machine without a model.

    Example:
        >>> resolve_pretrained("/nowhere")
        Traceback (most recent call last):
        lm_eval_pruned.errors.MissingDataError: pretrained=/nowhere is not a folder: ...
    """
    if pretrained == BUNDLED:
        return str(bundled_folder())
    if not pretrained:
        raise ArgumentError(f"pretrained is missing: give a hub id, a folder, or {BUNDLED}")
    if pretrained.endswith(GGUF) and is_there(Path(pretrained).expanduser()):
        folder = Path(pretrained).parent
        raise ArgumentError(
            f"pretrained={pretrained} is a file: for pruned-hf give pretrained={folder} and "
            f"gguf_file={Path(pretrained).name}; everything else needs a checkpoint with a config.json"
        )
    if looks_like_path(pretrained) and not (is_there(folder := Path(pretrained).expanduser()) and folder.is_dir()):
        raise MissingDataError(
            f"pretrained={pretrained} is not a folder: give a folder with a config.json, a hub id, or {BUNDLED}"
        )
    return str(Path(pretrained).expanduser()) if looks_like_path(pretrained) else pretrained


def check_has_config(source: str, subfolder: str = "") -> None:
    """Check that a folder on this machine holds a checkpoint of transformers, and say what it holds if not.

    Raises:
        MissingDataError: it has no config.json.
    """
    folder = Path(source, subfolder)
    if not is_there(Path(source)) or (folder / CONFIG_NAME).exists():
        return
    inner = sorted(str(path.parent) for path in folder.glob(f"*/{CONFIG_NAME}"))
    if inner:
        advice = f"but folders inside it have: give pretrained={' or '.join(inner[-SHOWN:])}"
    elif files := sorted(path.name for path in folder.glob(f"*{GGUF}")):
        advice = f"but GGUF files: give gguf_file={' or '.join(files[:SHOWN])}, which pruned-hf alone reads"
    else:
        advice = f"which every checkpoint of transformers has: give its folder, a hub id, or {BUNDLED}"
    raise MissingDataError(f"pretrained={folder} has no {CONFIG_NAME}, {advice}")


def check_gguf(source: str, name: str) -> None:
    """Check that a GGUF file can be read, as far as that shows before it is.

    Raises:
        MissingPackageError: the package gguf is missing.
        MissingDataError: the folder does not hold the file.
    """
    if find_spec("gguf") is None:
        raise MissingPackageError(f"gguf_file={name} needs the package gguf: pip install gguf")
    folder = Path(source)
    if folder.is_dir() and not (folder / name).is_file():
        files = sorted(path.name for path in folder.glob(f"*{GGUF}"))
        raise MissingDataError(
            f"gguf_file={name} is not in {source}: it holds {', '.join(files) if files else 'no GGUF file'}"
        )


def unreachable(pretrained: str, error: Exception) -> MissingDataError:
    """Turn the error of transformers for a checkpoint that cannot be loaded into one of ours."""
    reason = " ".join(str(error).split())
    return MissingDataError(
        f"pretrained={pretrained} cannot be loaded: check the name and the network, or give a local folder or "
        f"{BUNDLED} ({reason})"
    )


def read_config(source: str, options: LoadOptions) -> PretrainedConfig:
    """Read the config of a checkpoint.

    Raises:
        MissingDataError: it cannot be reached, or it has no config that transformers knows.
        DataError: a field of it is not valid.
        ArgumentError: it needs code of its own, which was not allowed.
    """
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(source, **options.for_transformers())
    except (OSError, ValueError) as error:
        if REMOTE in str(error):
            raise needs_code(source) from error
        raise unreachable(source, error) from error
    except INVALID as error:
        raise invalid_config(source, error) from error
    return config


def needs_code(source: str) -> ArgumentError:
    """Return the error for a checkpoint that needs code of its own, which was not allowed."""
    return ArgumentError(
        f"pretrained={source} needs code that comes with it, and none of that was run: read it, and if you trust it "
        "give trust_remote_code=True"
    )


def invalid_config(source: str, error: Exception) -> DataError:
    """Turn the error of transformers for a config with a wrong field into one of ours."""
    reason = " ".join(str(error).split())
    return DataError(f"pretrained={source} cannot be loaded: its {CONFIG_NAME} is not valid ({reason}): correct it")


def load_tokenizer(source: str, options: LoadOptions) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a checkpoint.

    Raises:
        MissingDataError: it cannot be reached.
    """
    try:
        return cast("PreTrainedTokenizerBase", AutoTokenizer.from_pretrained(source, **options.for_transformers()))
    except OSError as error:
        raise unreachable(source, error) from error


def auto_class(config: PretrainedConfig) -> type:
    """Return the class of transformers that loads a model: of a multimodal one, the part that writes text or all."""
    is_multimodal = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if is_multimodal and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForImageTextToText
    return AutoModelForCausalLM


def model_class(config: PretrainedConfig) -> type[PreTrainedModel] | None:
    """Return the class of transformers that a config describes, None where only code of the checkpoint has it."""
    mapping = (
        MODEL_FOR_CAUSAL_LM_MAPPING
        if auto_class(config) is AutoModelForCausalLM
        else MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    )
    found = None if hasattr(config, "auto_map") else mapping.get(type(config), None)
    return found if isinstance(found, type) else None


def set_untied(config: PretrainedConfig) -> None:
    """Let a config say that the head is not tied to the embeddings."""
    for one in (config, config.get_text_config()):
        if getattr(one, "tie_word_embeddings", False):
            one.tie_word_embeddings = False


def find_file(source: str, name: str, *, revision: str, subfolder: str = "") -> Path | None:
    """Return the path of a file of a folder or hub id, downloaded if need be; None if there is no such file."""
    try:
        path = cached_file(source, name, revision=revision, subfolder=subfolder)
    except UNREACHABLE:
        return None
    return Path(path) if path else None


def checkpoint_folder(source: str, *, revision: str) -> Path:
    """Return the folder of a checkpoint; for a hub id, the snapshot of its current commit in the local cache.

    Raises:
        MissingDataError: the checkpoint cannot be reached.
    """
    if Path(source).is_dir():
        return Path(source)
    try:
        config = cached_file(source, "config.json", revision=revision)
    except UNREACHABLE as error:
        raise unreachable(source, error) from error
    return Path(str(config)).parent


def looks_like_path(text: str) -> bool:
    """Distinguish a path on this machine from a hub id such as `Qwen/Qwen3-8B`.

    Example:
        >>> [looks_like_path(text) for text in ("Qwen/Qwen3-8B", "/models/mine", "./mine", "a/b/c")]
        [False, True, True, True]
    """
    return text.startswith((".", "/", "~")) or text.count("/") > 1 or is_there(Path(text))
