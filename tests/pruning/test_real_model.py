"""A real pretrained model behaves as published: what a method loses at 50 % ranks as in its paper."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.pruning.engine import prune_model
from tests.prose import perplexity, prose


@pytest.fixture(scope="module")
def dense(smollm2: Path) -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def texts(smollm2: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows of prose to calibrate on, and held out."""
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    return prose(tokenizer, samples=6, seqlen=256), prose(tokenizer, samples=6, seqlen=256, held_out=True)


def costs(
    dense: LlamaForCausalLM, texts: tuple[torch.Tensor, torch.Tensor], sparsity: float, count: int
) -> dict[str, float]:
    """Perplexity on held-out text over that of the dense model, by method, with so many windows of either."""
    calibration, held_out = (windows[:count] for windows in texts)
    base, found = perplexity(dense, held_out), {}
    for method in ("sparsegpt", "wanda", "magnitude"):
        pruned = copy.deepcopy(dense)
        prune_model(pruned, PruneConfig(method=method, sparsity=sparsity), calibration)
        found[method] = perplexity(pruned, held_out) / base
    return found


@pytest.mark.slow
def test_half_of_the_weights_go_and_the_perplexities_rank_as_published(dense, texts):
    cost = costs(dense, texts, 0.5, 6)
    assert 1 < cost["sparsegpt"] <= cost["wanda"] < cost["magnitude"]


@pytest.mark.slow
def test_a_tenth_of_the_weights_costs_a_few_percent_at_most(dense, texts):
    assert all(0.95 < cost < 1.05 for cost in costs(dense, texts, 0.1, 3).values())
