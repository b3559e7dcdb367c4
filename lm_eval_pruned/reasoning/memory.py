"""Memory: how many rows of a given length fit beside the model."""

from __future__ import annotations

import psutil
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lm_eval_pruned.reasoning.batch import Batch

# The rest is for activations, for the copy of a layer while a batch is rebuilt, and for others.
SHARE = 0.7
# A row's logits stand in memory about this often while a token is drawn: as they are, warped, and with noise.
LOGITS_COPIES = 4
_PROBE = 16


def rows_that_fit(model: PreTrainedModel, longest: int) -> int:
    """Return how many rows of `longest` tokens fit the free memory of the model's devices, at least 1."""
    devices = {parameter.device for parameter in model.parameters()}
    free = SHARE * sum(map(free_bytes, devices))
    logits = LOGITS_COPIES * 4 * model.config.get_text_config().vocab_size
    return max(1, int(free // (longest * cache_bytes(model) + logits)))


@torch.inference_mode()
def cache_bytes(model: PreTrainedModel) -> float:
    """Measure the bytes of key/value cache a token, on a text of a few tokens."""
    cache = Batch.read(model, [[0] * _PROBE], padding=0, autocast=None).cache
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
