"""Dropping whole blocks: which ones, and what else in a model speaks of its blocks one by one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, PruningError
from lm_eval_pruned.pruning.calibration.activations import Activations, Windows
from lm_eval_pruned.pruning.methods.kinds import DropMethod
from lm_eval_pruned.pruning.model.decoder import Decoder

# What a config says of its blocks beside lists of one entry a block: lists of the indices of some, and how many of the
# first are of another kind.
_INDICES = ("mlp_only_layers",)
_COUNTS = ("first_k_dense_replace",)


@torch.no_grad()
def block_influences(model: nn.Module, decoder: Decoder, windows: Windows, method: DropMethod) -> list[float]:
    """Return the influence of every block but the last, which is never dropped: a mean over windows.

    Raises:
        PruningError: a hidden state is not finite.
    """
    flow = Activations.capture(model, decoder, windows)
    influences = []
    for block in decoder.blocks[:-1]:
        with decoder.presence.of(block.module):
            means = [
                method.influence(before, _checked(after, block.name)).mean() for before, after in flow.steps(block)
            ]
        influences.append(float(torch.stack(means).mean()))
    return influences


def count_to_drop(config: PruneConfig, blocks: int) -> int:
    """Return how many blocks go: `num_blocks`, or the largest whole number not above `sparsity`.

    Raises:
        ArgumentError: that is no block at all, or all of them.
    """
    if config.num_blocks is not None:
        count, given = config.num_blocks, f"num_blocks={config.num_blocks}"
    else:
        # 0.3 * 10 is a little below 3 in floating point.
        count, given = int(config.target * blocks + 1e-9), f"sparsity={config.sparsity}"
    if not 1 <= count < blocks:
        raise ArgumentError(
            f"{given} drops {count} of the model's {blocks} blocks: give num_blocks from 1 to {blocks - 1}, or a "
            f"sparsity of at least {1 / blocks:.4f}"
        )
    return count


def drop_blocks(model: nn.Module, decoder: Decoder, removed: Collection[int]) -> Decoder:
    """Take blocks out of `model`, in place, renumber what is left and return it; blocks keep the names they had.

    Caches find their slot by `layer_idx`, and a config counts the blocks and may say of each what kind it is.

    Raises:
        PruningError: no config says which blocks are left, so that the model could not be saved and read again.
    """
    if not removed:
        return decoder
    kept = [block for block in decoder.blocks if block.index not in removed]
    container = decoder.blocks[0].name.rpartition(".")[0]
    blocks = model.get_submodule(container)
    assert isinstance(blocks, nn.ModuleList)
    for index in sorted(removed, reverse=True):
        del blocks[index]
    for index, block in enumerate(kept):
        for module in block.module.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index  # type: ignore[assignment]
    config = getattr(model, "config", None)
    if config is not None:
        _shorten(config.get_text_config(), [block.index for block in kept], len(decoder.blocks))
    if isinstance(model, PreTrainedModel):
        _check_config(model, f"{container}.")
    return replace(decoder, blocks=tuple(kept))


def _checked(hidden: Tensor, name: str) -> Tensor:
    if not hidden.isfinite().all():
        raise PruningError(f"what {name} writes is not finite: check the checkpoint and its dtype")
    return hidden


def _shorten(config: PretrainedConfig, kept: Sequence[int], blocks: int) -> None:
    for name, value in vars(config).items():
        if name in _INDICES and isinstance(value, list):
            setattr(config, name, [place for place, index in enumerate(kept) if index in value])
        elif name in _COUNTS and isinstance(value, int):
            setattr(config, name, sum(index < value for index in kept))
        elif isinstance(value, list) and len(value) == blocks:
            setattr(config, name, [value[index] for index in kept])
    config.num_hidden_layers = len(kept)


def _check_config(model: PreTrainedModel, prefix: str) -> None:
    """Build the model once more, without weights, from what its config says now, and compare the blocks."""
    with init_empty_weights(include_buffers=False):
        again = type(model)(deepcopy(model.config))
    shapes, built = (
        {(name, value.shape) for name, value in one.state_dict().items() if name.startswith(prefix)}
        for one in (model, again)
    )
    if differing := sorted(shapes ^ built):
        raise PruningError(
            f"the config of {type(model).__name__} cannot say which blocks are left, as {differing[0][0]} would be "
            "another when the model is read again: drop other blocks (num_blocks=...), or use another method"
        )
