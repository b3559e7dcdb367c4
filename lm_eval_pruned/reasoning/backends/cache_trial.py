"""A trial of a model's KV cache on a few tokens: whether it works, and which sequences may share a batch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
import transformers
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from lm_eval_pruned.errors import EngineError, PrunedEvalError
from lm_eval_pruned.process_memory import is_out_of_memory
from lm_eval_pruned.reasoning.backends.kv_batch import Batch
from lm_eval_pruned.reasoning.backends.limits import MOST_ROUNDING, PROBE_TOKENS


class CacheTraits(NamedTuple):
    """Whether a batch may hold sequences of different lengths (`pads`), and whether others may join it (`joins`)."""

    pads: bool
    joins: bool


@torch.inference_mode()
def try_cache(model: PreTrainedModel, *, autocast: torch.dtype | None) -> CacheTraits:
    """Decode a short text alone, and beside a longer one, and return what the cache allows.

    Padding is hidden if all layers of the cache follow a mask and, in float32, in which rounding is small, if both runs
    have the same logits. Without memory for two texts, only those of one length share a batch.

    Raises:
        EngineError: the model keeps no KV cache, or fails with it.
    """
    vocab = model.config.get_text_config().vocab_size
    # Special tokens are at the ends of the vocabulary.
    text = [(vocab // 2 + place) % vocab for place in range(PROBE_TOKENS)]
    short = text[: PROBE_TOKENS // 4]
    apart = CacheTraits(pads=False, joins=False)
    try:
        batch, alone = _decoded(model, [short], autocast)
    except PrunedEvalError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            return apart
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise EngineError(
            f"{type(model).__name__} cannot go on with its KV cache in transformers {transformers.__version__}, and so "
            "not generate under a thinking budget: take another model or another release of transformers, or a task "
            f"without thinking_token_budget ({reason})"
        ) from error
    if not batch.can_pad:
        return apart
    try:
        _, beside = _decoded(model, [text, short], autocast)
    except Exception:
        # Some masks of transformers fail for a padded batch.
        return apart
    # NaN, as in a model that pruning has ruined, is no difference.
    differs = (beside - alone).square().mean().sqrt() > MOST_ROUNDING * alone.std()
    is_exact = model.dtype == torch.float32 and autocast is None
    return apart if is_exact and differs else CacheTraits(pads=True, joins=batch.can_join)


def describe_equal_lengths(
    model: PreTrainedModel, traits: CacheTraits, batch_size: int | None, lengths: Collection[int]
) -> str | None:
    """Return a warning if prompts of different `lengths`, in tokens, would share a batch if they could be padded."""
    if traits.pads or batch_size == 1 or len(set(lengths)) == 1:
        return None
    return (
        "only prompts of equally many tokens share a batch, and where all differ each is generated alone: padding "
        f"changes the texts of {type(model).__name__}, or may, as it counts positions by itself or caches more than "
        "keys and values"
    )


def _decoded(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], autocast: torch.dtype | None
) -> tuple[Batch, Float[Tensor, " vocab"]]:
    """Prefill rows, fork the last, decode one token, and return the batch and the logits after the last row."""
    batch = Batch.prefill(model, rows, autocast=autocast)
    batch.select([*range(len(rows)), len(rows) - 1])
    batch.step([rows[-1][0]] * (len(rows) + 1))
    return batch, batch.logits[-1]
