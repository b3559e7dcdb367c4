"""Read the shapes of a model on the meta device, from which the cost of pruning it is computed."""

from __future__ import annotations

from collections.abc import Collection

import torch
from transformers import PretrainedConfig, PreTrainedModel

from lm_eval_pruned.pruning.model.decoder import Block, Linear, find_decoder, leave_alone
from lm_eval_pruned.pruning.model.shapes import Architecture, BlockShape, Matrix
from lm_eval_pruned.pruning.recipe import Recipe


def read_architecture(recipe: Recipe, model: PreTrainedModel, dtype: torch.dtype, *, whole: bool) -> Architecture:
    """Return the sizes of a model that determine the cost of pruning it.

    Args:
        recipe: says which matrices are in scope.
        model: the model; its weights may be on the meta device.
        dtype: dtype of the loaded weights.
        whole: whether all weights are in memory, or they are onloaded block by block.
    """
    config = model.config.get_text_config()
    scope = {sublayer for group in recipe.allocation_groups for sublayer in group}
    eager = config._attn_implementation == "eager"
    blocks = leave_alone(find_decoder(model), recipe.exclude).blocks
    inside = {module for block in blocks for module in block.module.modules()}
    outside = [parameter for module in {*model.modules()} - inside for parameter in module.parameters(recurse=False)]
    return Architecture(
        blocks=tuple(_block_shape(block, scope, config) for block in blocks),
        outside=None if whole else max(parameter.numel() for parameter in outside),
        hidden=config.hidden_size,
        vocabulary=config.vocab_size,
        weights=sum(parameter.numel() for parameter in model.parameters()),
        itemsize=dtype.itemsize,
        whole_scores=getattr(config, "num_attention_heads", 0) if eager else 0,
    )


def _block_shape(block: Block, scope: Collection[str], config: PretrainedConfig) -> BlockShape:
    """Return the shape of a block: its matrices share a module's input, but the last reads the others' output."""
    last = {_parent(linear): linear.name for linear in block.linears}
    experts = len({_parent(linear) for linear in block.linears if linear.routed})
    share = min(1.0, getattr(config, "num_experts_per_tok", experts) / experts) if experts else 1.0
    matrices = tuple(
        Matrix(
            rows=linear.weight.shape[0],
            columns=linear.weight.shape[1],
            source=linear.name if linear.name == last[_parent(linear)] else _parent(linear),
            share=share if linear.routed else 1.0,
            in_scope=linear.sublayer in scope,
        )
        for linear in block.linears
    )
    attention = [linear for linear in block.linears if linear.sublayer == "attn"]
    return BlockShape(matrices, attention[-1].weight.shape[1] if attention else 0)


def _parent(linear: Linear) -> str:
    return linear.name.rpartition(".")[0]
