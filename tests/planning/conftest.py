"""The small models and the calibration windows of the planning tests."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from tests.pruning.conftest import model, windows

__all__ = ["mixture", "model", "windows"]


@pytest.fixture
def mixture() -> Qwen3MoeForCausalLM:
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=97, hidden_size=32, intermediate_size=40, moe_intermediate_size=24, num_experts=6,
        num_experts_per_tok=2, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        mlp_only_layers=[1], tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen3MoeForCausalLM(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return model
