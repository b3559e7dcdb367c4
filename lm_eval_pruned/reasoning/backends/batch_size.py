"""Batch sizes: how many rows of a given length fit the free memory, and how to shrink after an out-of-memory error."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lm_eval_pruned.errors import EngineError
from lm_eval_pruned.reasoning.backends.kv_batch import Batch
from lm_eval_pruned.reasoning.backends.limits import LOGITS_COPIES, MEMORY_SHARE, PROBE_TOKENS


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """Limits on a batch: the rows it starts with, and the tokens its KV cache may hold, padding included.

    Forks add sequences to a batch as long as all tokens together are within the limit. `max_length` is that of the
    longest row, in tokens.
    """

    rows: int
    tokens: int
    max_length: int

    @classmethod
    def of_rows(cls, rows: int, max_length: int) -> BatchLimits:
        """Return the limits of a batch of `rows` rows of `max_length` tokens."""
        return cls(rows=rows, tokens=rows * max_length, max_length=max_length)

    def halved(self, sequences: int, width: int, error: RuntimeError | MemoryError) -> BatchLimits:
        """Return half of a batch of `sequences` sequences of `width` tokens, which ran out of memory with `error`.

        Raises:
            EngineError: it was a single sequence.
        """
        if sequences == 1:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise EngineError(
                f"there is no memory for a single row of {width} tokens beside the model: give a smaller "
                f"thinking_token_budget, max_gen_toks or dtype, or a device with more memory ({reason})"
            ) from error
        rows = min(self.rows, sequences) // 2
        if rows:
            return BatchLimits.of_rows(rows, self.max_length)
        # A single row forked into several sequences that did not fit, although their tokens were within its length.
        return BatchLimits(rows=1, tokens=sequences * width // 2, max_length=self.max_length)


def count_fitting_rows(model: PreTrainedModel, max_length: int) -> int:
    """Return how many rows of `max_length` tokens fit the free memory of the model's devices, at least 1."""
    devices = {parameter.device for parameter in model.parameters()}
    available = MEMORY_SHARE * sum(map(free_bytes, devices))
    logits = LOGITS_COPIES * 4 * model.config.get_text_config().vocab_size
    return max(1, int(available // (max_length * cache_bytes_per_token(model) + logits)))


@torch.inference_mode()
def cache_bytes_per_token(model: PreTrainedModel) -> float:
    """Measure the bytes of KV cache per token, on a short text."""
    cache = Batch.prefill(model, [[0] * PROBE_TOKENS], autocast=None).cache
    layers = getattr(cache, "layers", [])
    tensors = [value for layer in layers for value in vars(layer).values() if isinstance(value, Tensor)]
    return sum(tensor.nbytes for tensor in tensors) / PROBE_TOKENS


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device, with what PyTorch's allocator has reserved and does not use."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return int(psutil.virtual_memory().available)
