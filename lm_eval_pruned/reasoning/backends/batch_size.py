"""Batch sizes: how many rows of a given length fit the free memory, and how to shrink after an out-of-memory error."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
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
    row_bytes = cache_bytes(model, max_length)
    # An output is moved to the device of the input.
    row_bytes.setdefault(model.device, 0.0)
    row_bytes[model.device] += LOGITS_COPIES * 4 * model.config.get_text_config().vocab_size
    return max(1, min(int(MEMORY_SHARE * free_bytes(device) // size) for device, size in row_bytes.items()))


def cache_bytes(model: PreTrainedModel, tokens: int) -> dict[torch.device, float]:
    """Return the bytes that the cache of one sequence of `tokens` tokens takes on each device.

    Measured on two short texts: what both take are states, such as those of linear attention, and the difference grows
    with every token. A sliding window counts as if it held all tokens.
    """
    short, long = (_measured_bytes(model, length) for length in (PROBE_TOKENS, 2 * PROBE_TOKENS))
    further = tokens / PROBE_TOKENS - 1
    return {device: size + further * (long[device] - size) for device, size in short.items()}


@torch.inference_mode()
def _measured_bytes(model: PreTrainedModel, tokens: int) -> dict[torch.device, float]:
    sizes: dict[torch.device, float] = defaultdict(float)
    for tensor in {
        id(tensor): tensor for tensor in _tensors(Batch.prefill(model, [[0] * tokens], autocast=None).cache)
    }.values():
        sizes[tensor.device] += tensor.nbytes
    return sizes


def _tensors(value: object) -> Iterator[Tensor]:
    """Yield the tensors of a cache, wherever a release of transformers keeps them."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
    elif hasattr(value, "__dict__") and not isinstance(value, type | torch.nn.Module):
        yield from _tensors(vars(value))


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
