"""The outline of a checkpoint: modules, shapes of matrices, size of the calibration set, and none of the weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.calibration.readers import read_jsonl, read_token_ids
from lm_eval_pruned.pruning.calibration.source import is_traces
from lm_eval_pruned.pruning.calibration.windows import CHUNK_CHARACTERS
from lm_eval_pruned.pruning.checkpoint.resolve import DEFAULT_CONTEXT, bundled_calibration, unreachable
from lm_eval_pruned.pruning.methods import DropMethod
from lm_eval_pruned.pruning.model.decoder import Block, Linear, find_decoder
from lm_eval_pruned.pruning.model.shapes import Architecture, BlockShape, Matrix, WindowShape
from lm_eval_pruned.pruning.recipe import Recipe

# English prose, in the vocabularies of current models.
CHARACTERS_A_TOKEN = 4


def load_outline(source: str, loading: Mapping[str, object], dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Build the model of a checkpoint with its parameters on the meta device: every module and shape, and no weight.

    Raises:
        MissingDataError: its config cannot be reached.
        PruningError: transformers knows no causal language model of this config.
    """
    try:
        config = AutoConfig.from_pretrained(source, **loading)
        stated = {} if dtype is None else {"dtype": dtype}
        # Buffers are computed: no file has those that a model needs and does not save.
        with init_empty_weights(include_buffers=False):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, trust_remote_code=loading.get("trust_remote_code", False), **stated
            )
        if dtype is not None:
            # Transformers 4.56 leaves there what is stored.
            model.config.dtype = dtype
        model.tie_weights()
    except OSError as error:
        raise unreachable(source, error) from error
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise PruningError(
            f"pretrained={source} is no causal language model that transformers knows: {reason}"
        ) from None
    return model


def stored_dtype(config: PretrainedConfig) -> torch.dtype:
    """Return the dtype that the config of a checkpoint states, float32 where it states none."""
    settings = vars(config) | vars(config.get_text_config())
    stated = settings.get("dtype") or torch.float32
    return stated if isinstance(stated, torch.dtype) else getattr(torch, str(stated))


def read_architecture(recipe: Recipe, model: PreTrainedModel, dtype: torch.dtype, *, whole: bool) -> Architecture:
    """Return what of `model` decides the work, its weights held in `dtype`, as a `whole` or part by part."""
    config = model.config.get_text_config()
    scope = {part for group in recipe.groups for part in group}
    eager = config._attn_implementation == "eager"
    blocks = find_decoder(model).blocks
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


def read_window_shape(recipe: Recipe, source: str, model_config: PretrainedConfig) -> WindowShape:
    """Return the size of the calibration set that `recipe` names; of texts it is what was asked for.

    Raises:
        DataError: a local file holds no text, or is no matrix of token ids of this model.
    """
    config, text_config = recipe.config, model_config.get_text_config()
    if not recipe.needs_calibration:
        return WindowShape(0, 0)
    context = getattr(text_config, "max_position_embeddings", DEFAULT_CONTEXT)
    calib = config.calib or str(bundled_calibration(source) or "")
    if calib.endswith(".npy"):
        ids = read_token_ids(Path(calib), vocabulary=text_config.vocab_size, context=context)
        return WindowShape(*ids.shape)
    if calib.endswith(".jsonl") and not is_traces(calib):
        read_jsonl(Path(calib).expanduser())
    is_chunked = config.preset == "paper" and isinstance(recipe.method, DropMethod)
    longest = CHUNK_CHARACTERS // CHARACTERS_A_TOKEN if is_chunked else config.calib_seqlen
    return WindowShape(config.calib_samples, min(longest, context))


def _block_shape(block: Block, scope: Collection[str], config: PretrainedConfig) -> BlockShape:
    """The last matrix of a module reads what the others of that module have made; those are fed one input together."""
    last = {_parent(linear): linear.name for linear in block.linears}
    experts = len({_parent(linear) for linear in block.linears if linear.routed})
    share = min(1.0, getattr(config, "num_experts_per_tok", experts) / experts) if experts else 1.0
    matrices = tuple(
        Matrix(
            rows=linear.weight.shape[0],
            columns=linear.weight.shape[1],
            source=linear.name if linear.name == last[_parent(linear)] else _parent(linear),
            share=share if linear.routed else 1.0,
            in_scope=linear.part in scope,
        )
        for linear in block.linears
    )
    attention = [linear for linear in block.linears if linear.part == "attn"]
    return BlockShape(matrices, attention[-1].weight.shape[1] if attention else 0)


def _parent(linear: Linear) -> str:
    return linear.name.rpartition(".")[0]
