"""Attention masks of a decoding step, made without a synchronisation with the device to find padding."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING

from lm_eval_pruned.reasoning.backends.growing_layers import GrowingLayer, GrowingWindowLayer

# What a forward pass takes: a mask for all layers, one for each kind of layer, or none where nothing is hidden.
StepMask = Tensor | dict[str, Tensor | None] | None

# Kinds of layers in a config: those that attend to tokens, and those that have states.
ATTENDING = ("full_attention", "sliding_attention")
STATES = ("linear_attention", "conv")


def step_mask(
    model: PreTrainedModel, layers: Sequence[object], seen: Bool[Tensor, "sequences tokens"], *, is_padded: bool
) -> StepMask:
    """Return the attention mask of a step.

    From a mask [sequences tokens] transformers makes one [sequences 1 1 tokens] for SDPA, or none if nothing is padded,
    which it reads from the device. The batch knows its padding on the host, and models that compile with a static cache
    take what `generate` then gives them: such a mask, or one for each kind of layer.

    Args:
        model: the model.
        layers: layers of the cache, of kinds whose sequences can join.
        seen: False where a sequence is padded.
        is_padded: whether it is False anywhere.
    """
    if not any(isinstance(layer, DynamicLayer) for layer in layers):
        # Only states: the new tokens are no padding, and some models would hide all tokens before them.
        return None
    config = model.config.get_text_config()
    takes_masks = getattr(model, "_can_compile_fullgraph", False) and config._attn_implementation == "sdpa"
    kinds = set(getattr(config, "layer_types", None) or ())
    known = {*ATTENDING, *STATES} & LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING.keys()
    windows = {layer.sliding_window for layer in layers if isinstance(layer, GrowingWindowLayer)}
    # A window of the config that the cache does not cut off needs a mask of its own.
    is_in_cache = windows or ("sliding_attention" not in kinds and not getattr(config, "sliding_window", None))
    if not takes_masks or not kinds <= known or len(windows) > 1 or not is_in_cache:
        return seen.long()
    masks = seen[:, None, None]
    whole = masks if is_padded else None
    # A layer returns the tokens of a window, the new one included, or all if there are fewer. Where a window is full,
    # transformers gives SDPA a mask that hides nothing, and the kernel that takes one has other last bits.
    window = min(windows, default=0)
    in_window = masks[..., -window:] if is_padded or seen.shape[-1] >= window else None
    if kinds - {"full_attention"}:
        by_kind = {"full_attention": whole, "sliding_attention": in_window}
        return {kind: by_kind.get(kind) for kind in kinds}
    if all(isinstance(layer, GrowingWindowLayer) for layer in layers):
        return in_window
    return whole if all(type(layer) is GrowingLayer for layer in layers) else seen.long()
