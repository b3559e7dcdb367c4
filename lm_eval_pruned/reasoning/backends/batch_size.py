"""Batch sizes: how many rows of a given length fit the free memory, and how to shrink after an out-of-memory error."""

from __future__ import annotations

from collections import defaultdict
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
    """Return how many rows of `max_length` tokens fit the free memory, at least 1.

    Each device must hold the cache of its own layers: the one with the least room for them decides.
    """
    row_bytes = {device: max_length * size for device, size in cache_bytes_per_token(model).items()}
    # An output is moved to the device of the input.
    row_bytes.setdefault(model.device, 0.0)
    row_bytes[model.device] += LOGITS_COPIES * 4 * model.config.get_text_config().vocab_size
    return max(1, min(int(MEMORY_SHARE * free_bytes(device) // size) for device, size in row_bytes.items()))


@torch.inference_mode()
def cache_bytes_per_token(model: PreTrainedModel) -> dict[torch.device, float]:
    """Measure the bytes of KV cache per token on each device, on a short text."""
    cache = Batch.prefill(model, [[0] * PROBE_TOKENS], autocast=None).cache
    sizes: dict[torch.device, float] = defaultdict(float)
    for layer in getattr(cache, "layers", []):
        for value in vars(layer).values():
            if isinstance(value, Tensor):
                sizes[value.device] += value.nbytes / PROBE_TOKENS
    return dict(sizes)


def describe_single_rows(batch_size: int | None, rows: int, device: torch.device) -> str | None:
    """Return advice where a GPU gets one row at a time, which is the harness's default.

    Example:
        >>> describe_single_rows(1, 30, torch.device("cpu"))
    """
    if batch_size != 1 or rows == 1 or device.type == "cpu":
        return None
    return (
        f"batch_size=1 generates {rows} rows one after the other, each as slow as a whole batch: "
        "--batch_size auto takes as many as fit the memory"
    )


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device, with what PyTorch's allocator has reserved and does not use."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return int(psutil.virtual_memory().available)
