"""Worker extension for tests: keeps a copy of the loaded weights, as some devices change their layout afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from vllm.config import ModelConfig
from vllm.model_executor.model_loader import register_model_loader

from lm_eval_pruned.models.vllm.loader import LOAD_FORMAT, PrunedModelLoader
from lm_eval_pruned.pruning.masks.packing import count_zeros

LOADED: dict[str, Tensor] = {}
FUSED = {
    "q_proj": "qkv_proj",
    "k_proj": "qkv_proj",
    "v_proj": "qkv_proj",
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
}


class CopyingLoader(PrunedModelLoader):
    """Copies all parameters once they are loaded."""

    def load_weights(self, model: nn.Module, model_config: ModelConfig) -> None:
        super().load_weights(model, model_config)
        LOADED.update({name: value.detach().clone() for name, value in model.named_parameters()})


register_model_loader(LOAD_FORMAT)(CopyingLoader)


class WeightsInside:
    """Methods that vLLM adds to its worker."""

    def weights_inside(self, rows: Mapping[str, int]) -> dict[str, str]:
        """Return a digest of each matrix; `rows` has their row counts, in the order in which vLLM fuses them."""
        used: dict[str, int] = {}
        digests = {}
        for name, count in rows.items():
            parent, _, last = name.rpartition(".")
            fused = f"{parent}.{FUSED.get(last, last)}.weight"
            begin = used.get(fused, 0)
            used[fused] = begin + count
            digests[name] = digest(LOADED[fused][begin : begin + count])
        assert all(used[name] == len(LOADED[name]) for name in used)
        return digests

    def zeros_inside(self, prefix: str) -> int:
        """Count the zeros of all matrices whose names start with `prefix`."""
        matrices = [value for name, value in LOADED.items() if name.startswith(prefix) and value.ndim > 1]
        return sum(count_zeros(value) for value in matrices)


def digest(weight: Tensor) -> str:
    return hashlib.sha256(weight.detach().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
