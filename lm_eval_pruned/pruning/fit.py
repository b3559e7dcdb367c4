"""Refuse, from the config of a checkpoint alone, a recipe that its model cannot have."""

from __future__ import annotations

from copy import deepcopy

from transformers import AutoModelForCausalLM, PretrainedConfig

from lm_eval_pruned.errors import ArgumentError, PruningError
from lm_eval_pruned.pruning.checkpoint.formats import check_prunable, quantised, quantization_of
from lm_eval_pruned.pruning.masks.rule import check_divides
from lm_eval_pruned.pruning.methods import ExpertMethod, WidthMethod
from lm_eval_pruned.pruning.model.decoder import Decoder, find_decoder, leave_alone
from lm_eval_pruned.pruning.model.decoder import check_prunable as check_has_blocks
from lm_eval_pruned.pruning.model.drop_blocks import check_droppable
from lm_eval_pruned.pruning.model.empty import empty_weights
from lm_eval_pruned.pruning.model.narrowing import Narrowing
from lm_eval_pruned.pruning.model.narrowing_search import find_narrowing
from lm_eval_pruned.pruning.model.removal import Removal
from lm_eval_pruned.pruning.recipe import Recipe, count_to_drop

HALF = ("float16", "half", "torch.float16")


def check_fits(recipe: Recipe, config: PretrainedConfig, *, dtype: str = "auto") -> None:
    """Check a recipe against the config of its model, before any weight is loaded.

    Args:
        recipe: what is to be pruned.
        config: config of the checkpoint.
        dtype: dtype that the weights are loaded in; `auto` is that of the checkpoint.

    Raises:
        ArgumentError: as `check_config` and `check_decoder`.
        PruningError: as `check_config` and `check_decoder`.
    """
    check_config(recipe, config, dtype=dtype)
    if recipe.exclude is None and not recipe.reshapes and (recipe.method is None or recipe.config.n_m is None):
        return
    try:
        with empty_weights():
            model = AutoModelForCausalLM.from_config(deepcopy(config))  # type: ignore[no-untyped-call]
    except (ValueError, ImportError):
        # Code of its own, or a missing package: loading reports it.
        return
    check_decoder(recipe, leave_alone(find_decoder(model), recipe.exclude))


def check_config(recipe: Recipe, config: PretrainedConfig, *, dtype: str = "auto") -> None:
    """Check a recipe against the numbers in the config of its model.

    Raises:
        ArgumentError: more blocks are dropped, or listed, than the model has, or its rows do not divide into groups.
        PruningError: the model has an encoder or is quantised, or gradients would underflow.
    """
    check_decoder_only(config)
    if recipe.method is not None:
        check_prunable(quantization_of(config))
    text = config.get_text_config()
    blocks, columns = getattr(text, "num_hidden_layers", None), getattr(text, "hidden_size", None)
    listed = recipe.allocation.listed
    if recipe.drops_blocks and blocks:
        count_to_drop(recipe.config, blocks)
    is_listed = recipe.method is not None and recipe.config.is_listed and recipe.masks is None
    if blocks and is_listed and len(listed) != blocks:
        raise ArgumentError(
            f"alloc={recipe.config.alloc} lists {len(listed)} sparsities, but the model has {blocks} blocks"
        )
    if recipe.config.n_m and recipe.method is not None and columns and columns % recipe.config.n_m[1]:
        raise ArgumentError(
            f"pattern={recipe.config.pattern}: rows of {columns} weights do not divide into groups of "
            f"{recipe.config.n_m[1]}: choose another pattern"
        )
    if recipe.needs_gradients:
        stored = getattr(text, "dtype", None) or getattr(config, "dtype", None)
        if (str(stored) if dtype == "auto" else dtype) in HALF:
            raise PruningError("gradients in float16 underflow: load with dtype=bfloat16 or float32 for alloc=layerif")


def check_decoder(recipe: Recipe, decoder: Decoder) -> Narrowing | Removal | None:
    """Check that a model can be reshaped, and return what changes where that does not depend on its weights.

    Raises:
        ArgumentError: no channel or expert would be removed, or no such number of blocks can be dropped.
        PruningError: its MLPs or mixtures cannot be narrowed, no config describes the blocks that are left, or the
            columns of a matrix do not divide into the groups of the pattern.
    """
    if recipe.method is not None and recipe.config.n_m is not None:
        _check_columns(recipe, decoder, recipe.config.n_m[1])
    if isinstance(recipe.method, WidthMethod | ExpertMethod):
        return find_narrowing(decoder, recipe.method.unit, recipe.config.target)
    if recipe.drops_blocks:
        check_has_blocks(decoder)
        blocks = len(decoder.blocks)
        return check_droppable(decoder, count_to_drop(recipe.config, blocks), recipe.known_drops(blocks))
    return None


def _check_columns(recipe: Recipe, decoder: Decoder, m: int) -> None:
    """Check that the columns of all matrices in scope divide into groups of M.

    Raises:
        PruningError: those of one do not.
    """
    for linear in decoder.linears:
        if recipe.config.scope in ("all", linear.sublayer):
            try:
                check_divides(linear.weight.shape[1], m)
            except PruningError as error:
                raise PruningError(f"{linear.name}: {error}") from None


def check_supported(recipe: Recipe, config: PretrainedConfig | None) -> None:
    """Check the kind of a loaded model.

    Raises:
        PruningError: it has an encoder, or its weights are quantised.
    """
    check_decoder_only(config)
    quantization = quantization_of(config)
    if recipe.method is not None and quantization is not None:
        raise PruningError(quantised(quantization))


def check_decoder_only(config: PretrainedConfig | None) -> None:
    """Check that a model has no encoder.

    Raises:
        PruningError: it has one.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise PruningError(f"{config.__class__.__name__} has an encoder: only decoder-only language models are pruned")
