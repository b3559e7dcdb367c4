"""Methods that drop blocks: which ones, and models whose blocks were dropped, with their configs."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DiffLlamaConfig,
    DiffLlamaForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, PruningError
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.methods import METHODS
from lm_eval_pruned.pruning.model.decoder import find_decoder
from lm_eval_pruned.pruning.recipe import count_to_drop
from lm_eval_pruned.pruning.sequential import block_influences, run_influences
from tests.pruning.test_decoder import FAMILIES, build


def slow_influences(model, windows):
    """Influences from the hidden states that transformers returns, averaged in a loop."""
    influences = []
    for index in range(len(model.model.layers) - 1):
        texts = []
        for window in windows:
            states = model(window[None], output_hidden_states=True).hidden_states
            before, after = states[index][0], states[index + 1][0]
            cosines = [float(b @ a / (b.norm() * a.norm())) for b, a in zip(before, after, strict=True)]
            texts.append(1 - sum(cosines) / len(cosines))
        influences.append(sum(texts) / len(texts))
    return influences


@torch.no_grad()
def test_influences_equal_the_formula(model, windows):
    found = block_influences(find_decoder(model), windows, METHODS["shortgpt"])
    assert found == pytest.approx(slow_influences(model, windows), abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_least_influential_blocks_go_and_the_last_stays(model, windows, count):
    influences = slow_influences(model, windows)
    expected = sorted(sorted(range(3), key=lambda index: influences[index])[:count])
    last = model.model.layers[3]
    report = prune_model(model, PruneConfig(method="shortgpt", num_blocks=count), windows)
    assert report.removed_blocks == expected
    assert len(model.model.layers) == 4 - count
    assert model.model.layers[-1] is last
    assert report.achieved_sparsity == report.target_sparsity == count / 4
    assert [block.achieved for block in report.blocks] == [float(index in expected) for index in range(4)]


def slow_angles(model, windows, count):
    """Angles, over pi, between hidden states at the last token, `count` blocks apart, before the final norm."""
    states = []

    def note(module, inputs, output):
        states.append((inputs[0][0, -1], output[0, -1]))

    handles = [block.register_forward_hook(note) for block in model.model.layers]
    for window in windows:
        model(window[None])
    for handle in handles:
        handle.remove()
    blocks = len(model.model.layers)
    angles = []
    for first in range(blocks - count + 1):
        found = []
        for window in range(len(windows)):
            before, after = states[window * blocks + first][0], states[window * blocks + first + count - 1][1]
            cosine = sum(float(b) * float(a) for b, a in zip(before, after, strict=True))
            norms = math.sqrt(sum(float(b) ** 2 for b in before) * sum(float(a) ** 2 for a in after))
            found.append(math.acos(cosine / norms) / math.pi)
        angles.append(sum(found) / len(found))
    return angles


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_consecutive_blocks_of_the_smallest_angle_go(model, windows, count):
    angles = slow_angles(model, windows, count)
    assert run_influences(find_decoder(model), windows, METHODS["angular"], count) == pytest.approx(angles, abs=1e-5)
    first = min(range(len(angles)), key=angles.__getitem__)
    report = prune_model(model, PruneConfig(method="angular", num_blocks=count), windows)
    assert report.removed_blocks == list(range(first, first + count))


def test_blocks_that_are_called_twice_have_no_angle(model, windows):
    decoder = find_decoder(model)

    class Looped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *arguments, **keywords):
            self.model(*arguments, **keywords)
            return self.model(*arguments, **keywords)

    looped = replace(decoder, model=Looped())
    with pytest.raises(PruningError, match=r"model\.layers\.0 is called 10 times for 5 windows"):
        run_influences(looped, windows[:5], METHODS["angular"], 2)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_deepest_blocks_go_and_the_last_stays(model, count):
    assert prune_model(model, PruneConfig(method="reverse", num_blocks=count)).removed_blocks == [0, 1, 2][-count:]


def test_random_blocks_follow_their_seed(model):
    removed = {
        seed: prune_model(
            copy.deepcopy(model), PruneConfig(method="random-blocks", num_blocks=1, random_seed=seed)
        ).removed_blocks[0]
        for seed in range(16)
    }
    assert set(removed.values()) == {0, 1, 2, 3}
    again = prune_model(model, PruneConfig(method="random-blocks", num_blocks=1, random_seed=5))
    assert again.removed_blocks == [removed[5]]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_those_of_the_saved_and_reloaded_model(family, tmp_path):
    model = build(family)
    windows = torch.randint(1, 61, (3, 20), generator=torch.Generator().manual_seed(5))
    prune_model(model, PruneConfig(method="shortgpt", num_blocks=1), windows)
    with torch.no_grad():
        logits = model(windows).logits
        model.save_pretrained(tmp_path)
        again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        assert torch.equal(again(windows).logits, logits)
        assert model.config.num_hidden_layers == 2
        # The cache of a model with stale indices has a hole, or runs out of slots.
        generated = model.generate(windows, max_new_tokens=4, do_sample=False, pad_token_id=0)
        assert torch.equal(again.generate(windows, max_new_tokens=4, do_sample=False, pad_token_id=0), generated)


def test_lists_of_one_entry_a_block_are_shortened(windows):
    model = build("Gemma2")
    kinds = list(model.config.layer_types)
    report = prune_model(model, PruneConfig(method="shortgpt", num_blocks=1), windows.clamp(max=60))
    (gone,) = report.removed_blocks
    assert model.config.layer_types == [kind for index, kind in enumerate(kinds) if index != gone]
    assert [block.self_attn.layer_idx for block in model.model.layers] == [0, 1]


@pytest.mark.parametrize(
    ("settings", "blocks", "count"),
    [({"sparsity": 0.25}, 4, 1), ({"sparsity": 0.3}, 10, 3), ({"sparsity": 0.49}, 4, 1), ({"num_blocks": 2}, 36, 2)],
)
def test_a_sparsity_is_the_largest_whole_number_not_above(settings, blocks, count):
    assert count_to_drop(PruneConfig(method="shortgpt", **settings), blocks) == count


@pytest.mark.parametrize("settings", [{"sparsity": 0.1}, {"num_blocks": 4}, {"num_blocks": 0}])
def test_no_block_and_every_block_are_refused(model, windows, settings):
    before = copy.deepcopy(model.config.to_dict())
    with pytest.raises(ArgumentError, match="of the model's 4 blocks: give num_blocks from 1 to 3"):
        prune_model(model, PruneConfig(method="shortgpt", **settings), windows)
    assert model.config.to_dict() == before


def test_an_undefined_cosine_counts_half():
    influence = METHODS["shortgpt"].influence(torch.zeros(1, 2, 3), torch.ones(1, 2, 3))
    assert influence.tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("first", [True, False])
def test_indices_of_blocks_of_another_kind_follow(windows, tmp_path, first):
    model = mixture(mlp_only_layers=[1])
    # One block that hardly does anything, before or after the one without experts.
    with torch.no_grad():
        for weight in model.model.layers[0 if first else 2].parameters():
            weight.mul_(0.01)
    report = prune_model(model, PruneConfig(method="shortgpt", num_blocks=1), windows % 61)
    assert report.removed_blocks == [0 if first else 2]
    assert model.config.mlp_only_layers == [0 if first else 1]
    with torch.no_grad():
        logits = model(windows % 61).logits
        model.save_pretrained(tmp_path)
        assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path).eval()(windows % 61).logits, logits)


def test_blocks_that_were_cut_by_hand_are_not_dropped_from(model):
    del model.model.layers[2:]
    with pytest.raises(
        PruningError, match=r"has 2 blocks in model\.layers, and its config describes 4: give it a config"
    ):
        prune_model(model, PruneConfig(method="reverse", num_blocks=1))


def test_what_no_config_can_say_is_refused(windows):
    sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4}
    model = DiffLlamaForCausalLM(DiffLlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)).eval()
    before = copy.deepcopy(model.config.to_dict())
    with pytest.raises(PruningError, match=r"model\.layers\.\d of DiffLlamaForCausalLM would compute something else"):
        prune_model(model, PruneConfig(method="shortgpt", num_blocks=1), windows % 61)
    assert len(model.model.layers) == 4
    assert model.config.to_dict() == before


def mixture(**settings) -> Qwen3MoeForCausalLM:
    torch.manual_seed(0)
    settings = {"vocab_size": 61, **settings}
    config = Qwen3MoeConfig(
        hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=4,
        num_attention_heads=2, num_key_value_heads=2, head_dim=16, num_experts=4, num_experts_per_tok=2,
        max_position_embeddings=64, **settings,
    )  # fmt: skip
    return Qwen3MoeForCausalLM(config).eval()


def test_what_is_not_finite_has_no_influence(model, windows):
    model.model.layers[1].mlp.down_proj.weight.data *= float("inf")
    with pytest.raises(PruningError, match=r"what model\.layers\.1 writes is not finite"):
        prune_model(model, PruneConfig(method="shortgpt", num_blocks=1), windows)


def test_all_weights_of_the_dense_model_are_counted(model, windows):
    dense = sum(parameter.numel() for parameter in model.parameters())
    assert prune_model(model, PruneConfig(method="shortgpt", num_blocks=3), windows).model_weights == dense
