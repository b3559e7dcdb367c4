"""Named blocks dropped from models of many kinds: the rest computes what it computed, in memory and read again."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from lm_eval_pruned.config import PruneConfig, RunConfig
from lm_eval_pruned.errors import ArgumentError, PruningError
from lm_eval_pruned.models.prune_checkpoint import prune_pretrained
from lm_eval_pruned.planning.plan import make_plan
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.model.decoder import find_decoder
from lm_eval_pruned.pruning.recipe import resolve

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 5, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
# Blocks that share a transformer, each with adapters of its own.
SHARED = {
    "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid", "hybrid"],
    "num_mem_blocks": 1,
    "adapter_rank": 4,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "mamba_d_state": 8,
    "n_mamba_heads": 4,
    "mamba_ngroups": 1,
    "mamba_headdim": 16,
    "chunk_size": 8,
}
FULL, SLIDING = "full_attention", "sliding_attention"
# Type of model, its settings, and the blocks to drop. Depth constants, lists, counts of first and last blocks, periods.
CASES = {
    "plain": ("qwen3", {}, [0, 4]),
    "depth-constant": (
        "minicpm3",
        {
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
            "head_dim": None,
            "scale_depth": 1.4,
            "num_key_value_heads": 4,
        },
        [1, 3],
    ),
    "kinds": ("gemma3_text", {"sliding_window": 6, "layer_types": [SLIDING, FULL, SLIDING, SLIDING, FULL]}, [1, 2]),
    "kinds-with-repeats": (
        "gpt_neo",
        {"num_hidden_layers": 6, "num_layers": 6, "attention_types": [[["global", "local"], 3]], "window_size": 6},
        [1, 2],
    ),
    "first-window": ("qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2}, [0, 3]),
    "first-dense": (
        "glm4_moe",
        {
            **EXPERTS,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 2,
        },
        [1, 3],
    ),
    "exceptions": ("qwen3_moe", {**EXPERTS, "mlp_only_layers": [1, 3]}, [0, 3]),
    "period": ("qwen3_moe", {**EXPERTS, "decoder_sparse_step": 2}, [0, 2]),
    "range-of-experts": (
        "ernie4_5_moe",
        {
            "moe_intermediate_size": 16,
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_layer_start_index": 2,
            "moe_layer_end_index": 3,
        },
        [1, 3],
    ),
    "no-rope": ("smollm3", {"no_rope_layers": [1, 0, 1, 1, 0]}, [0, 2]),
    "per-layer-inputs": (
        "gemma3n_text",
        {
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 64,
            "laurel_rank": 4,
            "num_kv_shared_layers": 2,
            "sliding_window": 6,
            "intermediate_size": [48, 32, 48, 64, 48],
            "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.5, 0.0],
            "layer_types": [SLIDING, FULL, SLIDING, FULL, SLIDING],
        },
        [0, 4],
    ),
    "numbered-exceptions": (
        "gemma4_text",
        {
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 64,
            "global_head_dim": 16,
            "num_kv_shared_layers": 0,
            "sliding_window": 6,
            "layer_types": [SLIDING, FULL, SLIDING, SLIDING, FULL],
        },
        [2, 3],
    ),
    "shared-blocks": ("zamba2", SHARED, [0, 3]),
    "first-of-shared-blocks": ("zamba2", SHARED, [1]),
    "two-shared-in-turn": (
        "zamba2",
        {
            **SHARED,
            "num_mem_blocks": 2,
            "num_hidden_layers": 6,
            "use_shared_attention_adapter": True,
            "layers_block_type": ["linear_attention", "hybrid", "hybrid", "linear_attention", "hybrid", "hybrid"],
        },
        [1, 2],
    ),
}


def dense_model(kind: str, **settings: object):
    if kind not in CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {kind}")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **settings})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.15 + (parameter.ndim == 1))
    return model


def bypass(model, removed):
    """Let blocks run, and pass their inputs on."""

    def skip(module, arguments, keywords, output):
        hidden = arguments[0] if arguments else keywords["hidden_states"]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    for block in find_decoder(model).blocks:
        if block.index in removed:
            block.module.register_forward_hook(skip, with_kwargs=True)
    return model


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_the_remaining_blocks_compute_what_they_computed(case, tmp_path):
    kind, settings, removed = CASES[case]
    slow = bypass(dense_model(kind, **settings), removed)
    model = dense_model(kind, **settings)
    model.save_pretrained(tmp_path / "dense")
    config = PruneConfig(method="shortgpt", blocks=removed)
    plan = make_plan(resolve(config), AutoModelForCausalLM.from_pretrained(tmp_path / "dense"))
    report = prune_model(model, config)
    assert list(plan.removed_blocks) == report.removed_blocks == removed
    assert (plan.zero_weights, plan.target_sparsity) == (report.zero_weights, report.target_sparsity)
    assert plan.remaining_weights == report.remaining_weights
    # No weight of these is zero, so that what is gone is what was to go, also of what blocks share.
    assert report.target_sparsity == report.achieved_sparsity
    model.save_pretrained(tmp_path / "saved")
    folder = tmp_path / "pruned"
    folder.mkdir()
    save_tokenizer(tmp_path / "dense")
    options = LoadOptions(dtype="float32")
    prune_pretrained(str(tmp_path / "dense"), resolve(config), RunConfig(artifacts="off"), options, output=folder)
    ids = torch.randint(3, 60, (2, 20), generator=torch.Generator().manual_seed(1))
    limits = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    expected, written = slow(input_ids=ids).logits, slow.generate(input_ids=ids, **limits)
    assert tensor_names(folder) == tensor_names(tmp_path / "saved")
    for found in (model, *map(AutoModelForCausalLM.from_pretrained, (tmp_path / "saved", folder))):
        assert report.remaining_weights == sum(one.numel() for one in found.parameters())
        assert len(find_decoder(found.eval()).blocks) == len(find_decoder(slow).blocks) - len(removed)
        assert torch.allclose(found(input_ids=ids).logits, expected, atol=1e-6 * float(expected.abs().max()))
        assert torch.equal(found.generate(input_ids=ids, **limits), written)


def tensor_names(folder):
    return {name for path in folder.glob("*.safetensors") for name in load_file(path)}


def save_tokenizer(folder):
    """Write a tokenizer that knows one word, since a pruned checkpoint takes its own along."""
    words = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}
    (folder / "tokenizer.json").write_text(json.dumps({**words, "added_tokens": []}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))


@pytest.mark.parametrize(
    ("kind", "settings", "removed", "message"),
    [
        ("diffllama", {}, [1], r"model\.layers\.2 of DiffLlamaForCausalLM would compute something else"),
        ("gemma3n_text", CASES["per-layer-inputs"][1], [2], r"would compute something else|describes the remaining"),
    ],
    ids=["index", "dropped-keys"],
)
def test_what_the_config_cannot_say_is_refused_before_anything_changes(kind, settings, removed, message):
    model = dense_model(kind, **settings)
    before, names = copy.deepcopy(model.config.to_dict()), [*model.state_dict()]
    recipe = resolve(PruneConfig(method="shortgpt", blocks=removed))
    for attempt in (lambda: make_plan(recipe, model), lambda: prune_model(model, recipe)):
        with pytest.raises(PruningError, match=message):
            attempt()
    assert model.config.to_dict() == before
    assert [*model.state_dict()] == names


@pytest.mark.parametrize(
    ("given", "message"),
    [("5", "blocks=5: the model has 5 blocks, 0 to 4, and no block 5"), ("0-4", "drops all 5 blocks")],
)
def test_blocks_that_are_not_there_and_all_blocks_are_refused(given, message):
    model = dense_model("qwen3")
    recipe = resolve(PruneConfig(method="shortgpt", blocks=given))
    for attempt in (lambda: make_plan(recipe, model), lambda: prune_model(model, recipe)):
        with pytest.raises(ArgumentError, match=message):
            attempt()


@torch.no_grad()
def test_zeros_of_the_remaining_blocks_are_no_obstacle():
    model = dense_model("qwen3")
    for weight in model.model.layers.parameters():
        weight.view(-1)[::3] = 0
    report = prune_model(model, PruneConfig(method="shortgpt", blocks="2"))
    assert report.removed_blocks == [2]
    assert report.achieved_sparsity > report.target_sparsity == 0.2


class Indexed(torch.nn.Module):
    """A block that keeps its index under another name."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.layer_number, self.width, self.up = index, 4, torch.nn.Linear(4, 4)


def test_an_index_under_another_name_follows_in_a_model_without_a_config():
    model = torch.nn.ModuleDict({"layers": torch.nn.ModuleList(Indexed(index) for index in range(4))})
    prune_model(model, PruneConfig(method="shortgpt", blocks="0+2"))
    assert [(block.layer_number, block.width) for block in model["layers"]] == [(0, 4), (1, 4)]
