"""Build the model of a checkpoint on the meta device: every module and shape, without its weights."""

from __future__ import annotations

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions, unreachable


def build_meta_model(source: str, options: LoadOptions, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Build the model of a checkpoint with its parameters on the meta device.

    Args:
        source: folder or hub id.
        options: how its config is read.
        dtype: dtype of the parameters; None for the default of transformers.

    Raises:
        MissingDataError: its config cannot be reached.
        PruningError: transformers has no causal language model for this config.
    """
    try:
        config = AutoConfig.from_pretrained(source, **options.for_transformers())
        stated = {} if dtype is None else {"dtype": dtype}
        # Buffers are computed, because those that a model does not save are in no file.
        with init_empty_weights(include_buffers=False):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, trust_remote_code=options.trust_remote_code, **stated
            )
        if dtype is not None:
            # transformers 4.56 leaves the stored dtype there.
            model.config.dtype = dtype
        model.tie_weights()
    except OSError as error:
        raise unreachable(source, error) from error
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise PruningError(
            f"pretrained={source} is not a causal language model that transformers knows: {reason}"
        ) from None
    return model


def stored_dtype(config: PretrainedConfig) -> torch.dtype:
    """Return the dtype that the config of a checkpoint states, float32 if it states none."""
    settings = vars(config) | vars(config.get_text_config())
    stated = settings.get("dtype") or torch.float32
    return stated if isinstance(stated, torch.dtype) else getattr(torch, str(stated))
