"""Part by part: a checkpoint is read, pruned and written one block at a time, so that it may be larger than memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.process_memory import give_back
from lm_eval_pruned.pruning.artifacts.report import PruneReport, Stopwatch
from lm_eval_pruned.pruning.artifacts.store import WRITE_ERRORS, spill
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.checkpoint.meta_model import load_outline, stored_dtype
from lm_eval_pruned.pruning.checkpoint.offload import OnDisk, leave_on_disk
from lm_eval_pruned.pruning.checkpoint.reader import Shards
from lm_eval_pruned.pruning.checkpoint.resolve import unreachable
from lm_eval_pruned.pruning.checkpoint.writer import CheckpointWriter
from lm_eval_pruned.pruning.engine import prune_decoder
from lm_eval_pruned.pruning.model.decoder import Block, Decoder, find_decoder

logger = logging.getLogger(__name__)


class Opened(NamedTuple):
    """A checkpoint of which no weight is in memory."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    decoder: Decoder
    presence: OnDisk


def open_parts(source: str, *, dtype: str, device: str, loading: Mapping[str, object]) -> Opened | None:
    """Open a checkpoint to be read part by part; None where it has to be loaded as a whole.

    Raises:
        MissingDataError: the checkpoint cannot be reached.
        PruningError: transformers knows no causal language model of its config.
        DataError: a file of it is torn or missing.
    """
    try:
        config = AutoConfig.from_pretrained(source, **loading)
    except (OSError, ValueError) as error:
        raise unreachable(source, error) from error
    if getattr(config, "quantization_config", None) is not None:
        return None
    revision = str(loading.get("revision") or "main")
    shards = Shards.open(source, revision=revision)
    if not shards.files:
        return None
    model = load_outline(source, loading, stored_dtype(config) if dtype == "auto" else getattr(torch, dtype))
    decoder = leave_on_disk(model, find_decoder(model), shards, torch.device(device))
    if decoder is None:
        logger.info("%s has its weights under other names than the model: it is loaded as a whole", source)
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **loading)
    except OSError as error:
        raise unreachable(source, error) from error
    assert isinstance(decoder.presence, OnDisk)
    return Opened(model, tokenizer, decoder, decoder.presence)


def prune_parts(
    opened: Opened,
    config: PruneConfig,
    windows: Windows | None,
    *,
    artifacts: Path | None,
    output: Path | None,
    stopwatch: Stopwatch,
) -> PruneReport:
    """Prune as `prune_model` does, with two blocks in memory at a time; write a checkpoint to `output`, if given."""
    model, decoder, presence = opened.model, opened.decoder, opened.presence
    kept: dict[str, Tensor] = {}

    def leave(block: Block, writer: CheckpointWriter | None) -> None:
        if artifacts is None:
            kept.clear()
        else:
            own = {linear.name: kept[linear.name] for linear in block.linears if linear.name in kept}
            # Where nothing can be written it stays in memory.
            with suppress(*WRITE_ERRORS):
                kept.update(spill(own, artifacts))
        if writer is not None:
            writer.add(_renumbered(presence.contents(block.module), block, model))
        give_back()

    with nullcontext() if output is None else CheckpointWriter(folder=output) as writer:
        report = prune_decoder(
            model,
            decoder,
            config,
            windows,
            artifacts=artifacts,
            stopwatch=stopwatch,
            kept=kept,
            leave=partial(leave, writer=writer),
        )
        if writer is not None:
            for part in presence.each(presence.outside()):
                writer.add(presence.contents(part))
            writer.finish()
    if output is not None:
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(output)
        opened.tokenizer.save_pretrained(output)
    return report


def _renumbered(tensors: Mapping[str, Tensor], block: Block, model: nn.Module) -> dict[str, Tensor]:
    """Name the tensors of a block by the place it has in the model now that others may be gone."""
    place = next(name for name, module in model.named_modules() if module is block.module)
    return {f"{place}{name.removeprefix(block.name)}": tensor for name, tensor in tensors.items()}
