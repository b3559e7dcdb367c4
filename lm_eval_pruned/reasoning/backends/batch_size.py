"""Memory: how many rows of a given length fit beside the model, and what to do where it were fewer."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lm_eval_pruned.errors import EngineError
from lm_eval_pruned.reasoning.backends.kv_batch import Batch

# The rest is for activations, for the copy of a layer while a batch is rebuilt, and for others.
SHARE = 0.7
# A row's logits stand in memory about this often while a token is drawn: as they are, warped, and with noise.
LOGITS_COPIES = 4
_PROBE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """With how many rows a batch begins, how many tokens it may hold, and the tokens of the longest row.

    Forks make more rows of those a batch began with, as long as all their tokens are within the bound.
    """

    rows: int
    tokens: int
    longest: int

    @classmethod
    def of(cls, rows: int, longest: int) -> Bounds:
        """Return the bounds of batches of so many of the longest rows."""
        return cls(rows=rows, tokens=rows * longest, longest=longest)

    def below(self, lines: int, width: int, error: RuntimeError) -> Bounds:
        """Return half of what a batch of `lines` of `width` tokens showed to be too much.

        Raises:
            EngineError: it was a single line.
        """
        if lines == 1:
            reason = str(error).partition("\n")[0]
            raise EngineError(
                f"there is no memory for a single row of {width} tokens beside the model: give a smaller "
                f"thinking_token_budget, max_gen_toks or dtype, or a device with more memory ({reason})"
            ) from error
        rows = min(self.rows, lines) // 2
        if rows:
            return Bounds.of(rows, self.longest)
        # One row has forked into several, which were too many though they are within its length.
        return Bounds(rows=1, tokens=lines * width // 2, longest=self.longest)


def rows_that_fit(model: PreTrainedModel, longest: int) -> int:
    """Return how many rows of `longest` tokens fit the free memory of the model's devices, at least 1."""
    devices = {parameter.device for parameter in model.parameters()}
    free = SHARE * sum(map(free_bytes, devices))
    logits = LOGITS_COPIES * 4 * model.config.get_text_config().vocab_size
    return max(1, int(free // (longest * cache_bytes(model) + logits)))


@torch.inference_mode()
def cache_bytes(model: PreTrainedModel) -> float:
    """Measure the bytes of key/value cache a token, on a text of a few tokens."""
    cache = Batch.read(model, [[0] * _PROBE], autocast=None).cache
    layers = getattr(cache, "layers", [])
    held = [value for layer in layers for value in vars(layer).values() if isinstance(value, Tensor)]
    return sum(tensor.nbytes for tensor in held) / _PROBE


def free_bytes(device: torch.device) -> int:
    """Return the memory of a device that is free, or that PyTorch holds without using it."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return int(psutil.virtual_memory().available)
