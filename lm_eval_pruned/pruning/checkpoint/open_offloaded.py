"""Open a checkpoint with all its weights offloaded, so that it can be pruned although it does not fit in memory."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm_eval_pruned.pruning.checkpoint.meta_model import build_meta_model, stored_dtype
from lm_eval_pruned.pruning.checkpoint.offload import Offloaded, offload_to_checkpoint
from lm_eval_pruned.pruning.checkpoint.reader import Shards
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions, load_tokenizer, read_config
from lm_eval_pruned.pruning.model.decoder import Decoder, find_decoder

logger = logging.getLogger(__name__)


class OffloadedCheckpoint(NamedTuple):
    """A model whose weights stay in its checkpoint, with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    decoder: Decoder
    residency: Offloaded


def open_offloaded(source: str, options: LoadOptions) -> OffloadedCheckpoint | None:
    """Open a checkpoint without reading its weights; None if it has to be loaded whole.

    It has to if it is quantised, has no safetensors, or names its weights differently from the model.

    Raises:
        MissingDataError: the checkpoint cannot be reached.
        PruningError: transformers has no causal language model for its config.
        DataError: a file of it is truncated or missing.
    """
    config = read_config(source, options)
    if getattr(config, "quantization_config", None) is not None:
        return None
    shards = Shards.open(source, revision=options.revision)
    if not shards.files:
        return None
    model = build_meta_model(source, options, options.torch_dtype(stored_dtype(config)))
    decoder = find_decoder(model)
    residency = offload_to_checkpoint(decoder, shards, torch.device(options.device))
    if residency is None:
        logger.info("%s has its weights under other names than the model: it is loaded as a whole", source)
        return None
    tokenizer = load_tokenizer(source, options)
    return OffloadedCheckpoint(model, tokenizer, replace(decoder, residency=residency), residency)
