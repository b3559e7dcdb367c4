"""Peak memory by what holds it, against counts by hand."""

from __future__ import annotations

from dataclasses import replace

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.planning.memory import peak_memory_bytes
from lm_eval_pruned.pruning.model.shapes import BlockShape, Matrix, WindowShape
from lm_eval_pruned.pruning.recipe import resolve
from tests.pruning.hand_weights import TWO, WINDOWS, recipe


def test_the_dense_baseline_needs_its_weights():
    assert peak_memory_bytes(resolve(PruneConfig()), TWO, WindowShape(0, 0)) == {"weights": 200}


def test_memory_by_hand():
    held = peak_memory_bytes(recipe(), TWO, WINDOWS)
    # 4 windows of 10 tokens of 3 features in 2 bytes; a mask of 15, or 10 tokens of 3 + 2 + 5 + 3 features in 2.
    assert held == {
        "weights": 200,
        "hidden_states": 4 * 10 * 3 * 2,
        "block": max(15, 10 * 13 * 2),
        "masks": 42 // 8,
    }
    dropping = peak_memory_bytes(recipe(method="shortgpt", num_blocks=1, sparsity=None), TWO, WINDOWS)
    assert dropping["hidden_states"] == held["hidden_states"]


def test_part_by_part_either_a_block_is_at_work_or_the_largest_part_outside_is_read():
    small, large = (peak_memory_bytes(recipe(), replace(TWO, outside=outside), WINDOWS) for outside in (7, 70_000))
    block = peak_memory_bytes(recipe(), TWO, WINDOWS)["block"]
    assert small == {"part": 2 * 21 * 2, "hidden_states": 4 * 10 * 3 * 2, "block": block, "masks": 0}
    assert large == {"part": 140_000 + 21 * 2}


def test_whole_attention_scores_are_held_where_attention_is_not_fused():
    eager = peak_memory_bytes(recipe(), replace(TWO, whole_scores=8), WINDOWS)
    assert eager["block"] == 10 * 13 * 2 + 8 * 10 * 10 * (2 + 4)


def test_gradients_of_other_blocks_than_that_at_work_are_held_in_the_dtype_of_the_weights():
    held = peak_memory_bytes(recipe(alloc="layerif"), replace(TWO, blocks=TWO.blocks[:1] * 8), WINDOWS)
    # A pass of one window: the last block and the logits go backward together, and inputs of all blocks are held.
    assert held == {
        "weights": 200,
        "gradients": 2 * 8 * 21,
        "inputs": 8 * 10 * 3 * 2,
        "activations": int(1.5 * 10 * 13 * 2) + 10 * 7 * 16,
    }


def test_inputs_of_many_held_out_windows_may_outweigh_the_logits():
    deep = replace(TWO, blocks=TWO.blocks[:1] * 10)
    held = peak_memory_bytes(recipe(alloc="layerif"), deep, WindowShape(samples=400, seqlen=10))
    # Sums of the block at work and a product of it in float32; inputs of 5 of 10 blocks, and one more at work.
    assert held["gradients"] == 4 * (21 + 15)
    assert held["inputs"] == (5 * 100 + 1) * 10 * 3 * 2


def test_grams_outweigh_scores():
    wide = replace(TWO, blocks=(BlockShape((Matrix(2, 100, "a"), Matrix(2, 100, "a")), attention=0),))
    gram = 4 * 100 * 100
    assert peak_memory_bytes(recipe(method="sparsegpt"), wide, WINDOWS)["block"] == gram + 5 * gram + 4 * 3 * 2 * 100
