"""Models small enough to be pruned hundreds of times, and the windows that calibrate them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from lm_eval_pruned.paths import assets_folder

FOLDER = assets_folder() / "tiny_reasoner"
_SMALL = {
    "vocab_size": 261, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 8, "max_position_embeddings": 64,
}  # fmt: skip
# Makes a model in a dtype; two calls make the same weights.
Make = Callable[[torch.dtype], PreTrainedModel]


def tiny_reasoner(attention: str) -> PreTrainedModel:
    """Load tiny-reasoner."""
    return AutoModelForCausalLM.from_pretrained(FOLDER, attn_implementation=attention, dtype=torch.float32).eval()


def plain(dtype: torch.dtype) -> PreTrainedModel:
    """Make a random Qwen3 of three blocks."""
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(num_hidden_layers=3, **_SMALL)).to(dtype).eval()


def windowed(dtype: torch.dtype) -> PreTrainedModel:
    """Make a random Gemma 3 of three blocks, of which two see eight tokens."""
    torch.manual_seed(0)
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    config = Gemma3TextConfig(num_hidden_layers=3, layer_types=kinds, sliding_window=8, **_SMALL)
    return Gemma3ForCausalLM(config).to(dtype).eval()


def mixture_of_experts(dtype: torch.dtype) -> PreTrainedModel:
    """Make a random Qwen3-MoE of two blocks."""
    torch.manual_seed(0)
    experts = {"moe_intermediate_size": 8, "num_experts": 4, "num_experts_per_tok": 2, "decoder_sparse_step": 1}
    config = Qwen3MoeConfig(num_hidden_layers=2, mlp_only_layers=[], **experts, **_SMALL)
    return Qwen3MoeForCausalLM(config).to(dtype).eval()


def calibration_windows() -> torch.Tensor:
    """Return three windows of 24 tokens."""
    return torch.from_numpy(np.load(FOLDER / "calibration.npy")).long()[:3, :24]
