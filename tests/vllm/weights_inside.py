"""What a worker of vLLM imports to keep the weights as they were loaded: some devices lay them out anew after that."""

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


class Keeping(PrunedModelLoader):
    def load_weights(self, model: nn.Module, model_config: ModelConfig) -> None:
        super().load_weights(model, model_config)
        LOADED.update({name: value.detach().clone() for name, value in model.named_parameters()})


register_model_loader(LOAD_FORMAT)(Keeping)


class WeightsInside:
    """Becomes part of the worker."""

    def weights_inside(self, rows: Mapping[str, int]) -> dict[str, str]:
        """Return a digest of each matrix; `rows` are those of the matrices, in the order in which they are fused."""
        used: dict[str, int] = {}
        found = {}
        for name, count in rows.items():
            parent, _, last = name.rpartition(".")
            fused = f"{parent}.{FUSED.get(last, last)}.weight"
            begin = used.get(fused, 0)
            used[fused] = begin + count
            found[name] = digest(LOADED[fused][begin : begin + count])
        assert all(used[name] == len(LOADED[name]) for name in used)
        return found

    def zeros_inside(self, prefix: str) -> int:
        """Count the zeros of all matrices whose names begin so."""
        matrices = [value for name, value in LOADED.items() if name.startswith(prefix) and value.ndim > 1]
        return sum(count_zeros(value) for value in matrices)


def digest(weight: Tensor) -> str:
    return hashlib.sha256(weight.detach().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
