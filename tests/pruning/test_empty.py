"""Models that are built without memory for their weights."""

from __future__ import annotations

import torch
from torch import nn
from transformers import GPTBigCodeConfig, GPTBigCodeModel

from lm_eval_pruned.pruning.model import empty
from lm_eval_pruned.pruning.model.empty import empty_weights


class Block(nn.Module):
    """Experts of four terabytes, a Linear, and a table that is computed."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.experts = nn.Parameter(torch.empty(*sizes))
        self.shared = nn.Linear(4, 4)
        nn.init.normal_(self.experts, std=0.02)
        self.register_buffer("table", torch.arange(4.0).outer(torch.ones(4)))


def test_parameters_need_no_memory_and_buffers_keep_their_values():
    with empty_weights():
        block = Block(1 << 10, 1 << 15, 1 << 15)
        other = nn.Parameter(torch.zeros((1 << 20, 1 << 20)))
        drawn = nn.init.normal_(torch.empty(64))
    assert block.experts.is_meta
    assert block.shared.weight.is_meta
    assert other.is_meta
    assert block.table[:, 0].tolist() == [0, 1, 2, 3]
    assert drawn.std() > 0.5
    assert not nn.Linear(2, 2).weight.is_meta


def test_a_causal_mask_of_a_long_context_is_a_buffer(monkeypatch):
    monkeypatch.setattr(empty, "LARGE", 1 << 10)
    config = GPTBigCodeConfig(n_positions=1 << 5, n_embd=8, n_layer=1, n_head=1, vocab_size=8)
    with empty_weights():
        mask = GPTBigCodeModel(config).bias
    assert not mask.is_meta
    assert mask[-2:, -2:].tolist() == [[True, False], [True, True]]
