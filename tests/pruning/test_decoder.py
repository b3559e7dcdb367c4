"""Decoder blocks, their Linears and experts, found by the structure of models of several families."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.calibration.statistics import InputNorm
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.model.decoder import check_prunable, find_decoder

SMALL = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
FAMILIES = {
    "Qwen3": {"intermediate_size": 40, "num_key_value_heads": 1, "head_dim": 16},
    "Llama": {"intermediate_size": 40, "num_key_value_heads": 1},
    "Mistral": {"intermediate_size": 40, "num_key_value_heads": 1, "sliding_window": 8},
    "Gemma2": {"intermediate_size": 40, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 8},
    "Gemma3Text": {"intermediate_size": 40, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 8},
    "Phi": {"intermediate_size": 40},
    "OPT": {"ffn_dim": 40, "word_embed_proj_dim": 32, "max_position_embeddings": 64},
    "GPTNeoX": {"intermediate_size": 40},
}
CLASSES = {"Gemma3Text": "Gemma3ForCausalLM"}


def build(family: str) -> nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SMALL, **FAMILIES[family], pad_token_id=0)
    return getattr(transformers, CLASSES.get(family, f"{family}ForCausalLM"))(config).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_and_sublayers_are_found_by_structure(family):
    decoder = find_decoder(build(family))
    assert [block.index for block in decoder.blocks] == [0, 1, 2]
    for block in decoder.blocks:
        attention = [linear.name.rpartition(".")[2] for linear in block.linears if linear.sublayer == "attn"]
        mlp = [linear.name.rpartition(".")[2] for linear in block.linears if linear.sublayer == "mlp"]
        assert len(attention) in (2, 4)
        assert len(mlp) in (2, 3)
    assert any("lm_head" in item.name or "embed_out" in item.name for item in decoder.excluded)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("alloc", ["uniform", "layerif"])
def test_every_family_is_walked(family, method, alloc):
    model = build(family)
    windows = torch.randint(1, 61, (4, 20), generator=torch.Generator().manual_seed(5))
    dense = model(windows).logits
    report = prune_model(model, PruneConfig(method=method, sparsity=0.5, alloc=alloc), windows)
    assert report.achieved_sparsity == pytest.approx(0.5, abs=0.03)
    assert not torch.equal(model(windows).logits, dense)


def test_propagated_hidden_states_equal_those_of_the_model():
    from lm_eval_pruned.pruning.calibration.recording import record

    model = build("Gemma3Text")
    windows = torch.randint(1, 61, (2, 20), generator=torch.Generator().manual_seed(5))
    blocks = find_decoder(model).blocks
    expected = model(windows[:1], output_hidden_states=True, use_cache=False).hidden_states
    activations = record(find_decoder(model), windows).activations
    for index, block in enumerate(blocks[:-1]):
        torch.testing.assert_close(activations.states[0].hidden, expected[index], rtol=0, atol=0)
        activations.advance(block)


def test_shared_inputs_share_one_statistic():
    from lm_eval_pruned.pruning.calibration.recording import record

    model = build("Llama")
    blocks = find_decoder(model).blocks
    windows = torch.randint(1, 61, (2, 20), generator=torch.Generator().manual_seed(5))
    activations = record(find_decoder(model), windows).activations
    statistics = activations.measure(blocks[0], blocks[0].linears, InputNorm, advance=False)
    by_name = {name.rpartition(".")[2]: id(value) for name, value in statistics.items()}
    assert by_name["q_proj"] == by_name["k_proj"] == by_name["v_proj"]
    assert by_name["gate_proj"] == by_name["up_proj"]
    assert len(set(by_name.values())) == 4


def test_the_router_of_a_list_of_experts_is_left_alone():
    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(8, 3)
            self.experts = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])

    decoder = find_decoder(nn.ModuleDict({"layers": nn.ModuleList([Mixture(), Mixture()])}))
    assert [linear.name for linear in decoder.blocks[1].linears] == [f"layers.1.experts.{index}" for index in range(3)]
    assert {(item.name, item.reason) for item in decoder.excluded} == {
        ("layers.0.gate", "router of a mixture of experts"),
        ("layers.1.gate", "router of a mixture of experts"),
    }


def test_fused_experts_of_unknown_layout_are_refused_not_skipped():
    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Linear(8, 8)
            self.experts = nn.Parameter(torch.zeros(3, 8, 8))

    decoder = find_decoder(nn.ModuleDict({"layers": nn.ModuleList([Fused()])}))
    with pytest.raises(PruningError, match="holds the weights of all experts in one tensor and does not say"):
        check_prunable(decoder)
