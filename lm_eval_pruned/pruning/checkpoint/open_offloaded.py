"""Open a checkpoint with all its weights offloaded, so that it can be pruned although it does not fit in memory."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from lm_eval_pruned.pruning.checkpoint.formats import quantization_of
from lm_eval_pruned.pruning.checkpoint.meta_model import build_meta_model, stored_dtype
from lm_eval_pruned.pruning.checkpoint.offload import Offloaded, offload_to_checkpoint
from lm_eval_pruned.pruning.checkpoint.reader import Shards, has_own_head
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions, read_config
from lm_eval_pruned.pruning.model.decoder import Decoder, find_decoder

logger = logging.getLogger(__name__)


class OffloadedCheckpoint(NamedTuple):
    """A model whose weights stay in its checkpoint, and where and how that was opened."""

    model: PreTrainedModel
    decoder: Decoder
    residency: Offloaded
    source: str
    options: LoadOptions


def open_offloaded(source: str, options: LoadOptions) -> OffloadedCheckpoint | None:
    """Open a checkpoint without reading its weights; None if it has to be loaded whole.

    It has to if it is quantised, has no safetensors, or names its weights differently from the model.

    Raises:
        MissingDataError: the checkpoint cannot be reached.
        PruningError: transformers has no causal language model for its config.
        DataError: a file of it is truncated or missing.
    """
    config = read_config(source, options)
    if quantization_of(config) is not None:
        return None
    shards = Shards.open(source, revision=options.revision, subfolder=options.subfolder)
    if not shards.files:
        return None
    dtype = options.torch_dtype(stored_dtype(config, shards.on_meta().values()))
    model = build_meta_model(source, options, dtype)
    if has_own_head(model, shards):
        model = build_meta_model(source, options, dtype, is_untied=True)
    decoder = find_decoder(model)
    residency = offload_to_checkpoint(decoder, shards, torch.device(options.device))
    if residency is None:
        logger.info("%s has its weights under other names than the model: it is loaded as a whole", source)
        return None
    decoder = replace(decoder, residency=residency)
    return OffloadedCheckpoint(model, decoder, residency, source, options)
