"""Teacher forcing in two parts against a slow independent computation with plain transformers."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
)

from lm_eval_pruned import PruneConfig, prune_model
from lm_eval_pruned.divergence import kl as kl_file
from lm_eval_pruned.divergence.head import OwnHead, Whole, divide
from lm_eval_pruned.divergence.kl import compare
from lm_eval_pruned.divergence.measure import dense_traces, diverge, mean_kl
from lm_eval_pruned.divergence.traces import TokenTrace, batches
from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.paths import bundled_folder

VOCAB = 61
SMALL = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "initializer_range": 0.5, "pad_token_id": 0,
}  # fmt: skip
FAMILIES = {
    # Without the cap or the scale, logits would be several times as large.
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=16, final_logit_softcapping=2.0)),
    "cohere": lambda: CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.1)),
    "granite": lambda: GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=7.0)),
    "mamba": lambda: MambaForCausalLM(MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2)),
}


def random_traces(vocab: int, seed: int = 0) -> list[TokenTrace]:
    generator = torch.Generator().manual_seed(seed)
    lengths = ((9, 4), (30, 1), (2, 1), (17, 16), (30, 12))
    return [
        TokenTrace(
            question=str(index % 4),
            ids=tuple(torch.randint(vocab, (length,), generator=generator).tolist()),
            start=start,
            thinking=(length - start) // 2,
        )
        for index, (length, start) in enumerate(lengths)
    ]


class Slow(NamedTuple):
    kl: list[float]
    flipped: list[bool]


@torch.no_grad()
def slowly(dense: nn.Module, pruned: nn.Module, traces: list[TokenTrace]) -> Slow:
    """One trace and one token at a time, in float64, from the logits of the whole models."""
    found = Slow([], [])
    for trace in traces:
        ids = torch.tensor([trace.ids])
        before, after = (model(ids).logits[0].double() for model in (dense, pruned))
        for position in range(trace.start - 1, len(trace.ids) - 1):
            p, q = (torch.softmax(logits[position], 0) for logits in (before, after))
            found.kl.append(sum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True) if a > 0))
            found.flipped.append(bool(p.argmax() != q.argmax()))
    return found


def check_equal(dense: PreTrainedModel, traces: list[TokenTrace], config: PruneConfig) -> None:
    model = copy.deepcopy(dense)
    parts = divide(model, torch.tensor([traces[0].ids]))
    along = dense_traces(parts, traces)
    assert diverge(parts, along).kl.tolist() == [0.0] * sum(trace.tokens for trace in traces)
    prune_model(model, config)
    found, slow = diverge(parts, along), slowly(dense, model, traces)
    np.testing.assert_allclose(found.kl, slow.kl, rtol=1e-4, atol=1e-5)
    assert found.flipped.tolist() == slow.flipped
    assert mean_kl(parts, along) == pytest.approx(np.mean(slow.kl), abs=1e-5)
    assert np.mean(slow.kl) > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_plain_transformers(family, monkeypatch):
    monkeypatch.setattr(kl_file, "CHUNK_BYTES", 4 * VOCAB * 7)  # seven tokens at once
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    assert isinstance(divide(model, torch.tensor([[1, 2, 3]])), OwnHead)
    check_equal(model, random_traces(VOCAB), PruneConfig(method="magnitude", sparsity=0.5))


@pytest.mark.parametrize("config", [{"sparsity": 0.5}, {"method": "shortgpt", "blocks": "3"}])
def test_equals_plain_transformers_on_the_bundled_model(config):
    model = AutoModelForCausalLM.from_pretrained(bundled_folder()).eval()
    check_equal(model, random_traces(264), PruneConfig(**{"method": "magnitude", **config}))


class Odd(nn.Module):
    """A model whose logits need more than its final hidden states."""

    def __init__(self) -> None:
        super().__init__()
        self.base_model = nn.Module()
        self.table = nn.Parameter(torch.randn(VOCAB, VOCAB))

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> object:
        return type("Output", (), {"logits": self.table[input_ids]})


def test_a_model_that_cannot_be_divided_keeps_its_logits(caplog):
    model = Odd()
    parts = divide(model, torch.tensor([[1, 2]]))
    assert isinstance(parts, Whole)
    assert "logits are stored" in caplog.text
    dense, traces = copy.deepcopy(model), random_traces(VOCAB)
    along = dense_traces(parts, traces)
    with torch.no_grad():
        model.table.mul_(0.5)
    np.testing.assert_allclose(diverge(parts, along).kl, slowly(dense, model, traces).kl, atol=1e-5)


def test_padding_of_the_vocabulary_with_minus_infinity_counts_nothing():
    dense, pruned = torch.tensor([[1.0, 2.0, -math.inf]]), torch.tensor([[2.0, 1.0, -math.inf]])
    found = compare(dense, pruned, torch.tensor([0]))
    assert found.kl.item() == pytest.approx(compare(dense[:, :2], pruned[:, :2], torch.tensor([0])).kl.item())
    assert found.flipped.item()


def test_logits_that_are_not_finite_are_refused():
    model = Odd()
    parts, traces = Whole(model), random_traces(VOCAB)
    along = dense_traces(parts, traces)
    with torch.no_grad():
        model.table[traces[1].ids[3]] = math.nan
    with pytest.raises(PruningError, match=r"logits of the pruned model are not finite.*dtype=float32"):
        diverge(parts, along)
    with pytest.raises(PruningError, match="logits of the dense model"):
        diverge(parts, dense_traces(parts, traces))


def test_small_divergences_keep_their_precision():
    """A KL of 1e-6 nats among 150,000 tokens of the vocabulary is right to a tenth."""
    generator = torch.Generator().manual_seed(0)
    dense = 10 * torch.randn(4, 150_000, generator=generator)
    pruned = dense + 2e-3 * torch.randn(4, 150_000, generator=generator)
    exact = [torch.softmax(one.double(), -1) for one in (dense, pruned)]
    kl = (exact[0] * (exact[0] / exact[1]).log()).sum(-1)
    assert kl.max() < 1e-5
    np.testing.assert_allclose(compare(dense, pruned, torch.zeros(4, dtype=torch.long)).kl, kl, atol=3e-7)


def test_batches_hold_every_trace_once_within_their_size():
    traces = random_traces(VOCAB)
    found = batches(traces, tokens=60)
    assert sorted(index for batch in found for index in batch) == list(range(len(traces)))
    assert all(len(batch) * max(len(traces[index].ids) for index in batch) <= 60 for batch in found)
