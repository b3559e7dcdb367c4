"""Checkpoints: which one `pretrained` means, how it is loaded, and the calibration windows that fit it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, cast

from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import GENERATION_CONFIG_NAME
from transformers.utils.hub import cached_file

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, MissingDataError
from lm_eval_pruned.paths import BUNDLED, bundled_folder, is_there
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.calibration.source import load_chunks, load_windows

DEFAULT_CONTEXT = 2048


class Checkpoint(NamedTuple):
    """A loaded model with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def resolve_pretrained(pretrained: str) -> str:
    """Return the folder of the bundled model, or `pretrained` itself if it can exist.

    Raises:
        ArgumentError: it is empty.
        MissingDataError: it is a path on this machine where no model is.

    Example:
        >>> resolve_pretrained("/nowhere")
        Traceback (most recent call last):
        lm_eval_pruned.errors.MissingDataError: pretrained=/nowhere is not a folder: ...
    """
    if pretrained == BUNDLED:
        return str(bundled_folder())
    if not pretrained:
        raise ArgumentError(f"pretrained is missing: give a hub id, a folder, or {BUNDLED}")
    if looks_like_path(pretrained) and not (is_there(folder := Path(pretrained).expanduser()) and folder.is_dir()):
        raise MissingDataError(
            f"pretrained={pretrained} is not a folder: give a folder with a config.json, a hub id, or {BUNDLED}"
        )
    return str(Path(pretrained).expanduser()) if looks_like_path(pretrained) else pretrained


def unreachable(pretrained: str, error: Exception) -> MissingDataError:
    """Word the error of transformers for a checkpoint that cannot be loaded."""
    reason = " ".join(str(error).split())
    return MissingDataError(
        f"pretrained={pretrained} cannot be loaded: check the name and the network, or give a local folder or "
        f"{BUNDLED} ({reason})"
    )


def bundled_calibration(pretrained: str) -> Path | None:
    """Return the calibration windows that lie beside a bundled model."""
    folder = bundled_folder()
    return folder / "calibration.npy" if Path(pretrained) == folder else None


def load_checkpoint(source: str, *, dtype: str, device: str, loading: Mapping[str, object]) -> Checkpoint:
    """Load a causal language model and its tokenizer; `loading` goes to transformers.

    Raises:
        MissingDataError: the checkpoint cannot be reached.
    """
    try:
        # Of a folder without a model this says so; what the tokenizer would say is that a package is missing.
        AutoConfig.from_pretrained(source, **loading)
    except (OSError, ValueError) as error:
        raise unreachable(source, error) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **loading)
        model: nn.Module = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **loading)
    except OSError as error:
        raise unreachable(source, error) from error
    return Checkpoint(cast("PreTrainedModel", model.to(device).eval()), tokenizer)


def windows_for(
    config: PruneConfig, source: str, model_config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> Windows:
    """Return the calibration windows that `config` names, for the vocabulary and context of a checkpoint.

    Under `preset=paper` the texts for shortgpt are chunks of different lengths.
    """
    text_config = model_config.get_text_config()
    context = getattr(text_config, "max_position_embeddings", DEFAULT_CONTEXT)

    def encode(text: str) -> list[int]:
        return cast("list[int]", tokenizer(text, verbose=False)["input_ids"])

    is_text = not (config.calib or "").endswith(".npy")
    if config.preset == "paper" and config.method == "shortgpt" and is_text:
        return load_chunks(config, encode, context=context)
    return load_windows(
        config, encode, vocabulary=text_config.vocab_size, context=context, bundled=bundled_calibration(source)
    )


def find_file(source: str, name: str, *, revision: str) -> Path | None:
    """Return a file of a folder or hub id, which is downloaded first; None where there is none."""
    try:
        path = cached_file(source, name, revision=revision)
    except OSError:
        return None
    return Path(path) if path else None


def copy_generation_config(source: str, folder: Path, *, revision: str) -> None:
    """Give a checkpoint in `folder` the generation config of `source` as it is, or none: it says nothing of weights.

    Transformers reads some that it then refuses to write.
    """
    (folder / GENERATION_CONFIG_NAME).unlink(missing_ok=True)
    found = find_file(source, GENERATION_CONFIG_NAME, revision=revision)
    if found is not None:
        shutil.copyfile(found, folder / GENERATION_CONFIG_NAME)


def checkpoint_folder(source: str, *, revision: str) -> Path:
    """Return the folder of a checkpoint; of one on the hub that of its present commit, as far as it is downloaded.

    Raises:
        MissingDataError: the checkpoint cannot be reached.
    """
    if Path(source).is_dir():
        return Path(source)
    try:
        config = cached_file(source, "config.json", revision=revision)
    except OSError as error:
        raise unreachable(source, error) from error
    return Path(str(config)).parent


def looks_like_path(text: str) -> bool:
    """Tell a path on this machine from a hub id such as `Qwen/Qwen3-8B`.

    Example:
        >>> [looks_like_path(text) for text in ("Qwen/Qwen3-8B", "/models/mine", "./mine", "a/b/c")]
        [False, True, True, True]
    """
    return text.startswith((".", "/", "~")) or text.count("/") > 1 or is_there(Path(text))
