"""Remove decoder blocks from a model, and fix layer indices and the per-layer lists of its config."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import replace

from accelerate import init_empty_weights
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.model.decoder import Decoder

# Config fields that refer to blocks besides lists with one entry per block: lists of block indices, and the number of
# leading blocks that are of another kind.
_INDICES = ("mlp_only_layers",)
_COUNTS = ("first_k_dense_replace",)


def drop_blocks(decoder: Decoder, removed: Collection[int]) -> Decoder:
    """Remove blocks from the model, in place, and renumber the rest; remaining blocks keep their names and indices.

    The KV cache is indexed by `layer_idx`, and a config counts the blocks and may list a kind for each.

    Raises:
        PruningError: no config describes the remaining blocks, so that the model could not be saved and loaded again.
    """
    if not removed:
        return decoder
    model = decoder.model
    remaining = [block for block in decoder.blocks if block.index not in removed]
    container = decoder.blocks[0].name.rpartition(".")[0]
    blocks = model.get_submodule(container)
    assert isinstance(blocks, nn.ModuleList)
    for index in sorted(removed, reverse=True):
        del blocks[index]
    for index, block in enumerate(remaining):
        for module in block.module.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index  # type: ignore[assignment]
    config = getattr(model, "config", None)
    if config is not None:
        _shorten(config.get_text_config(), [block.index for block in remaining], len(decoder.blocks))
    if isinstance(model, PreTrainedModel):
        _check_config(model, f"{container}.")
    return replace(decoder, blocks=tuple(remaining))


def _shorten(config: PretrainedConfig, remaining: Sequence[int], blocks: int) -> None:
    for name, value in vars(config).items():
        if name in _INDICES and isinstance(value, list):
            setattr(config, name, [new for new, index in enumerate(remaining) if index in value])
        elif name in _COUNTS and isinstance(value, int):
            setattr(config, name, sum(index < value for index in remaining))
        elif isinstance(value, list) and len(value) == blocks:
            setattr(config, name, [value[index] for index in remaining])
    config.num_hidden_layers = len(remaining)


def _check_config(model: PreTrainedModel, prefix: str) -> None:
    """Build the model again, without weights, from its changed config, and compare the shapes of the blocks."""
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
