"""Recipes that the config of a checkpoint alone shows to be impossible."""

from __future__ import annotations

import json

import pytest
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, DiffLlamaConfig, LlamaConfig

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import PrunedEvalError, PruningError
from lm_eval_pruned.pruning.fit import check_fits
from lm_eval_pruned.pruning.model.decoder import find_decoder
from lm_eval_pruned.pruning.model.drop_blocks import check_droppable
from lm_eval_pruned.pruning.model.empty import empty_weights
from lm_eval_pruned.pruning.recipe import resolve

CONFIG = LlamaConfig(num_hidden_layers=4, hidden_size=96, num_attention_heads=4)


@pytest.mark.parametrize(
    ("given", "dtype", "message"),
    [
        ({"method": "shortgpt", "num_blocks": 4}, "auto", "num_blocks=4 drops 4 of the model's 4 blocks"),
        ({"method": "shortgpt", "sparsity": 0.2}, "auto", "sparsity=0.2 drops 0 of the model's 4 blocks"),
        ({"method": "wanda", "pattern": "3:7"}, "auto", "rows of 96 weights do not divide into groups of 7"),
        ({"method": "magnitude", "alloc": "layerif", "sparsity": 0.2}, "float16", "gradients in float16 underflow"),
        (
            {"method": "magnitude", "alloc": "FOLDER/three.json"},
            "auto",
            "lists 3 sparsities, but the model has 4 blocks",
        ),
        (
            {"method": "magnitude", "alloc": "FOLDER/empty.json"},
            "auto",
            "lists 0 sparsities, but the model has 4 blocks",
        ),
    ],
)
def test_what_cannot_fit_is_refused(tmp_path, given, dtype, message):
    (tmp_path / "three.json").write_text(json.dumps([0.1, 0.2, 0.3]))
    (tmp_path / "empty.json").write_text("[]")
    given = {
        name: value.replace("FOLDER", str(tmp_path)) if isinstance(value, str) else value
        for name, value in given.items()
    }
    with pytest.raises(PrunedEvalError) as error:
        check_fits(resolve(PruneConfig(**given)), CONFIG, dtype=dtype)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"method": "shortgpt", "num_blocks": 3},
        {"method": "wanda", "pattern": "2:4"},
        {"method": "magnitude", "alloc": "layerif", "sparsity": 0.2},
    ],
)
def test_what_fits_passes(given):
    check_fits(resolve(PruneConfig(**given)), CONFIG, dtype="bfloat16")


@pytest.mark.parametrize(
    ("settings", "given", "message"),
    [
        (
            {"intermediate_size": 33},
            {"method": "wanda", "pattern": "2:4"},
            r"model\.layers\.0\.mlp\.down_proj: its 33 columns do not divide into groups of 4",
        ),
        ({"num_hidden_layers": 1}, {"method": "shortgpt", "num_blocks": 1}, "the model has only one block"),
    ],
)
def test_sizes_of_a_model_are_checked_from_the_config(settings, given, message):
    config = LlamaConfig(**{"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, **settings})
    with pytest.raises(PrunedEvalError, match=message):
        check_fits(resolve(PruneConfig(**given)), config)


def test_a_matrix_out_of_scope_needs_no_groups():
    config = LlamaConfig(num_hidden_layers=2, hidden_size=32, num_attention_heads=4, intermediate_size=33)
    check_fits(resolve(PruneConfig(method="wanda", pattern="2:4", scope="attn")), config)
    check_fits(resolve(PruneConfig(method="wanda", pattern="2:4", exclude="down_proj")), config)


@pytest.mark.parametrize("given", [{"num_blocks": 1}, {"blocks": [0]}, {"num_blocks": 1, "method": "random-blocks"}])
@pytest.mark.parametrize(
    ("width", "heads", "message"),
    [
        (32, 4, "would compute something else once blocks are dropped"),
        (1024, 32, "would compute something else once blocks are dropped"),
        # The exponential of a sum over the head.
        (1024, 4, "does not run on a few tokens.*what it computes from random weights is not finite"),
    ],
)
def test_drops_that_no_config_can_say_are_refused_from_the_config(given, width, heads, message):
    config = DiffLlamaConfig(
        num_hidden_layers=4, hidden_size=width, intermediate_size=48, num_attention_heads=heads, vocab_size=64
    )
    with pytest.raises(PruningError, match=message):
        check_fits(resolve(PruneConfig(**{"method": "shortgpt", **given})), config)


@pytest.mark.parametrize(("blocks", "dense"), [([0], 2), ([3], 3)])
def test_a_mixture_larger_than_memory_is_tried_with_narrow_blocks(blocks, dense):
    config = CONFIG_MAPPING["deepseek_v3"](num_hidden_layers=5, first_k_dense_replace=3, vocab_size=64)
    weights = config.n_routed_experts * config.hidden_size * config.moe_intermediate_size * 3
    assert 2 * 4 * weights > 80e9
    removal = check_droppable(build(config), len(blocks), blocks)
    assert removal.config.first_k_dense_replace == dense


def build(config):
    with empty_weights():
        return find_decoder(AutoModelForCausalLM.from_config(config))
