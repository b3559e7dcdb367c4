"""A Qwen3 mixture of experts: fused tensors are pruned one expert at a time, with the tokens routed to it."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.blocks import find_decoder
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.influence import influences

from . import reference

EXPERTS, HIDDEN, INNER = 6, 32, 24


@pytest.fixture
def mixture() -> Qwen3MoeForCausalLM:
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=97, hidden_size=HIDDEN, intermediate_size=40, moe_intermediate_size=INNER, num_experts=EXPERTS,
        num_experts_per_tok=2, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        # One block of the usual kind among them, as such models have.
        mlp_only_layers=[1],
    )  # fmt: skip
    model = Qwen3MoeForCausalLM(config).eval()
    if not hasattr(model.model.layers[0].mlp.experts, "gate_up_proj"):
        pytest.skip("this release of transformers keeps one Linear an expert")
    for block in (0, 2):
        for parameter in model.model.layers[block].mlp.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def routed_inputs(model: Qwen3MoeForCausalLM, block: int, windows: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
    """The tokens that go into each expert and its down projection, computed by hand from what the router is fed."""
    mixture, seen = model.model.layers[block].mlp, []
    handle = mixture.register_forward_pre_hook(lambda module, args: seen.append(args[0][0].detach()))
    for window in windows:
        model(window[None])
    handle.remove()
    tokens = torch.cat(seen)
    chosen = (tokens @ mixture.gate.weight.T).topk(2, dim=-1).indices
    found = []
    for index in range(EXPERTS):
        own = tokens[(chosen == index).any(dim=1)]
        gate, up = mixture.experts.gate_up_proj[index].split(INNER)
        found.append((own, torch.nn.functional.silu(own @ gate.T) * (own @ up.T)))
    return found


@torch.no_grad()
def test_wanda_uses_the_tokens_that_were_routed(mixture, windows):
    found = routed_inputs(mixture, 0, windows)
    experts = copy.deepcopy(mixture.model.layers[0].mlp.experts)
    prune_model(mixture, PruneConfig(method="wanda", sparsity=0.5), windows)
    pruned = mixture.model.layers[0].mlp.experts
    assert all(len(own) for own, _ in found)
    for index, (own, inner) in enumerate(found):
        for name, inputs in (("gate_up_proj", own), ("down_proj", inner)):
            weight = getattr(experts, name)[index]
            expected = reference.rows_by_score(weight, weight.abs() * inputs.norm(dim=0), 0.5)
            assert torch.equal(getattr(pruned, name)[index], expected), (name, index)


@torch.no_grad()
def test_magnitude_compares_within_one_matrix_of_one_expert(mixture):
    experts = copy.deepcopy(mixture.model.layers[2].mlp.experts)
    report = prune_model(mixture, PruneConfig(method="magnitude", sparsity=0.3))
    pruned = mixture.model.layers[2].mlp.experts
    for index in range(EXPERTS):
        for half in (slice(0, INNER), slice(INNER, 2 * INNER)):
            expected = reference.magnitude_matrix(experts.gate_up_proj[index, half], 0.3)
            assert torch.equal(pruned.gate_up_proj[index, half], expected)
        assert torch.equal(pruned.down_proj[index], reference.magnitude_matrix(experts.down_proj[index], 0.3))
    assert report.achieved_sparsity == pytest.approx(0.3, abs=1e-3)
    names = {item.name for item in report.linears}
    assert "model.layers.0.mlp.experts.5.up_proj" in names
    assert "model.layers.1.mlp.up_proj" in names
    assert {"name": "model.layers.0.mlp.gate.weight", "reason": "not the weight of a Linear"} in report.excluded


def test_names_are_those_of_the_checkpoint(mixture, tmp_path):
    from safetensors import safe_open

    mixture.save_pretrained(tmp_path)
    names = [linear.name for block in find_decoder(mixture).blocks for linear in block.linears]
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert {f"{name}.weight" for name in names} <= set(file.keys())


def test_an_expert_that_no_token_reaches_is_pruned_by_its_weights(mixture, windows):
    windows = windows[:1, :2]  # two tokens reach four of six experts at most
    before = mixture.model.layers[0].mlp.experts.gate_up_proj.detach().clone()
    found = routed_inputs(mixture, 0, windows)
    silent = [index for index, (own, _) in enumerate(found) if not len(own)]
    assert len(silent) >= 2
    with torch.no_grad():
        prune_model(mixture, PruneConfig(method="wanda", sparsity=0.5), windows)
    for index in silent:
        expected = reference.rows_by_score(before[index], before[index].abs(), 0.5)
        assert torch.equal(mixture.model.layers[0].mlp.experts.gate_up_proj[index], expected)


@pytest.mark.parametrize("method", ["sparsegpt", "wanda"])
@pytest.mark.parametrize("alloc", ["owl", "dlp", "layerif", "alphapruning"])
def test_every_allocation_reads_a_mixture(mixture, windows, method, alloc):
    report = prune_model(mixture, PruneConfig(method=method, sparsity=0.4, alloc=alloc), windows)
    assert report.achieved_sparsity == pytest.approx(0.4, abs=0.04)
    assert mixture.config._experts_implementation != "eager"


def test_influences_of_experts_equal_those_of_whole_gradients(mixture, windows):
    decoder = find_decoder(mixture)
    held, training = windows[-1:], windows[:-1]
    fused = mixture.model.layers[0].mlp.experts.down_proj
    expert = [linear for linear in decoder.blocks[0].linears if linear.name.endswith("experts.2.down_proj")]
    scoped = [[expert, [], []]]
    ours = influences(mixture, decoder.blocks, scoped, windows)[0, 0]

    def gradient(window: torch.Tensor) -> torch.Tensor:
        mixture.zero_grad()
        mixture(window[None], labels=window[None]).loss.backward()
        return fused.grad[2].double().clone()

    toward = gradient(held[0])
    expected = sum(max(0.0, float((toward * gradient(window)).sum())) for window in training)
    assert float(ours) == pytest.approx(expected, rel=1e-4)


def test_experts_that_hide_their_products_are_refused(mixture, windows, monkeypatch):
    experts = mixture.model.layers[0].mlp.experts
    monkeypatch.setattr(type(experts), "forward", lambda self, states, *_: states)
    with pytest.raises(PruningError, match=r"experts\.0\.gate_proj is never called"):
        prune_model(mixture, PruneConfig(method="wanda", sparsity=0.5), windows)
