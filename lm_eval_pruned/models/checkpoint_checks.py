"""Check a checkpoint before any weight is loaded: its format, and whether it has every weight of its model."""

from __future__ import annotations

from pathlib import Path

from transformers.utils.import_utils import is_flash_attn_2_available

from lm_eval_pruned.errors import MissingPackageError
from lm_eval_pruned.models.arguments import peek_config
from lm_eval_pruned.pruning.checkpoint.complete import check_complete
from lm_eval_pruned.pruning.checkpoint.formats import check_adapter, check_loadable, check_prunable, quantization_of
from lm_eval_pruned.pruning.checkpoint.meta_model import build_meta_model, stored_dtype
from lm_eval_pruned.pruning.checkpoint.reader import Shards, remote_headers
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions, check_has_config


def check_checkpoint(source: str, options: LoadOptions, *, prunes: bool) -> None:
    """Check the format of a checkpoint from its small files.

    Args:
        source: folder or hub id.
        options: how it is loaded.
        prunes: whether a method prunes it; a dense model may be anything that transformers loads.

    Raises:
        PruningError: its weights are quantised and are to be pruned, or transformers cannot load them.
        MissingPackageError: a package that reads it is missing.
        ArgumentError: an adapter lies in it.
        MissingDataError: it is a folder without a config.json.
    """
    check_adapter(source, revision=options.revision, subfolder=options.subfolder, prunes=prunes)
    check_has_config(source, options.subfolder)
    quantization = quantization_of(peek_config(source, options.for_transformers()))
    if prunes:
        check_prunable(quantization)
    check_loadable(quantization)


def check_weights(source: str, options: LoadOptions, *, downloads: bool = True) -> None:
    """Check that a checkpoint has every weight of its model; no weight is read.

    Args:
        source: folder or hub id.
        options: how it is loaded.
        downloads: whether files of a hub id may be downloaded; otherwise only the headers of its safetensors are.

    Raises:
        DataError: it lacks weights, has some in another shape, or a file of it is damaged.
    """
    config = peek_config(source, options.for_transformers())
    # Loading explains a config that cannot be read, and knows what code of the checkpoint or a quantisation makes of
    # tensors.
    if config is None or hasattr(config, "auto_map") or quantization_of(config):
        return
    if downloads or Path(source).is_dir():
        stored = Shards.open_any(source, revision=options.revision, subfolder=options.subfolder).on_meta()
    else:
        stored = remote_headers(source, revision=options.revision)
    if stored:
        model = build_meta_model(source, options)
        check_complete(source, model, stored, options.torch_dtype(stored_dtype(model.config, stored.values())))


def check_attention(implementation: str) -> None:
    """Check that the package of an implementation of attention is there.

    Raises:
        MissingPackageError: FlashAttention 2 is asked for and not installed.
    """
    if implementation == "flash_attention_2" and not is_flash_attn_2_available():
        raise MissingPackageError(
            "attn_implementation=flash_attention_2 needs flash-attn and a GPU: pip install flash-attn, or leave it out "
            "for sdpa"
        )
