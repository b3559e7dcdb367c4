"""Build the model of a checkpoint on the meta device: every module and shape, without its weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.checkpoint.resolve import (
    INVALID,
    REMOTE,
    LoadOptions,
    auto_class,
    invalid_config,
    needs_code,
    set_untied,
    unreachable,
)
from lm_eval_pruned.pruning.model.empty import empty_weights


def build_meta_model(
    source: str, options: LoadOptions, dtype: torch.dtype | None = None, *, is_untied: bool = False
) -> PreTrainedModel:
    """Build the model of a checkpoint with its parameters on the meta device.

    Args:
        source: folder or hub id.
        options: how its config is read.
        dtype: dtype of the parameters; None for the default of transformers.
        is_untied: whether its head is its own although the config says that it is tied to the embeddings.

    Raises:
        MissingDataError: its config cannot be reached.
        DataError: a field of its config is not valid.
        ArgumentError: it needs code of its own, which was not allowed.
        PruningError: transformers has no causal language model for this config.
    """
    try:
        config = _config(source, options)
        if is_untied:
            set_untied(config)
        stated = {} if dtype is None else {"dtype": dtype}
        # Buffers are computed, because those that a model does not save are in no file.
        with empty_weights():
            model: PreTrainedModel = auto_class(config).from_config(  # type: ignore[attr-defined]
                config, trust_remote_code=options.trust_remote_code, **stated
            )
        if dtype is not None:
            # transformers 4.56 leaves the stored dtype there.
            model.config.dtype = dtype
        model.tie_weights()
    except OSError as error:
        raise unreachable(source, error) from error
    except TypeError as error:
        # Before transformers 5, a config does not check the types of its fields.
        raise invalid_config(source, error) from error
    except ValueError as error:
        if REMOTE in str(error):
            raise needs_code(source) from error
        reason = str(error).partition("\n")[0]
        raise PruningError(
            f"pretrained={source} is not a causal language model that transformers knows: {reason}"
        ) from None
    return model


def _config(source: str, options: LoadOptions) -> PretrainedConfig:
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(source, **options.for_transformers())
    except INVALID as error:
        raise invalid_config(source, error) from error
    return config


def stored_dtype(config: PretrainedConfig, tensors: Iterable[Tensor] = ()) -> torch.dtype:
    """Return the dtype that the config of a checkpoint states, or that of its first floating tensor, or float32."""
    settings = vars(config) | vars(config.get_text_config())
    stated = settings.get("dtype") or next((one.dtype for one in tensors if one.is_floating_point()), torch.float32)
    return stated if isinstance(stated, torch.dtype) else getattr(torch, str(stated))
