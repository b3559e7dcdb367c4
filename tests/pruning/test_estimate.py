"""Estimates are counts: they equal what PyTorch counts, what masks remove, and what one works out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.estimate import (
    Architecture,
    BlockShape,
    Matrix,
    WindowShape,
    Work,
    memory,
    phases,
    planned_zeros,
    seconds,
    total,
)
from lm_eval_pruned.pruning.mask import MaskRule
from lm_eval_pruned.pruning.outline import read_architecture
from lm_eval_pruned.pruning.recipe import resolve

# Attention of 2 x 3 [out 6] and an MLP of 3 x 5, small enough for pencil and paper.
BLOCK = BlockShape((Matrix(2, 3, "a"), Matrix(3, 5, "b")), attention=0)
TWO = Architecture(blocks=(BLOCK, BLOCK), hidden=3, vocabulary=7, weights=100, itemsize=2)
WINDOWS = WindowShape(samples=4, seqlen=10)


def recipe(**settings):
    return resolve(PruneConfig(**{"method": "wanda", "sparsity": 0.5, **settings}))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"propagate": "dense"},
        {"scope": "attn"},
        {"scope": "mlp"},
        {"alloc": "owl"},
        {"alloc": "dlp", "method": "magnitude"},
        {"alloc": "layerif"},
        {"alloc": "layerif", "scope": "attn"},
        {"method": "shortgpt", "num_blocks": 1, "sparsity": None},
    ],
    ids=str,
)
def test_operations_are_those_that_pytorch_counts(model, windows, settings):
    given = recipe(**settings)
    shape = read_architecture(given, model, torch.float32, whole=True)
    # Attention is no product with a weight; PyTorch counts the half that causal attention leaves out as well.
    shape = replace(shape, blocks=tuple(block._replace(attention=0) for block in shape.blocks))
    works = phases(given, shape, WindowShape(*windows.shape))
    with FlopCounterMode(display=False) as counter:
        prune_model(model, given.config, windows)
    counted = counter.get_flop_counts()["Global"]
    matmul = {torch.ops.aten.mm, torch.ops.aten.addmm}
    expected = total(works.values())
    assert expected.products + expected.precise == sum(counted[kind] for kind in matmul if kind in counted)


def test_sparsegpt_adds_a_gram_matrix_an_input(model, windows):
    wanda, sparsegpt = (
        phases(given, read_architecture(given, model, torch.float32, whole=True), WindowShape(*windows.shape))
        for given in (recipe(), recipe(method="sparsegpt"))
    )
    assert sparsegpt["calibrate"].products == wanda["calibrate"].products
    tokens = windows.numel()
    # Inputs of q, k and v; of o; of gate and up; of down.
    assert sparsegpt["calibrate"].precise == 4 * tokens * 2 * (32**2 + 64**2 + 32**2 + 48**2)
    assert sparsegpt["prune"].eliminated == wanda["prune"].ranked == 4 * (32 * (64 + 32 + 32 + 64) + 3 * 32 * 48)


def test_attention_is_quadratic_in_the_window():
    attentive = replace(TWO, blocks=(BLOCK._replace(attention=6),) * 2)
    given = recipe(method="shortgpt", num_blocks=1, sparsity=None)
    added = phases(given, attentive, WINDOWS)["calibrate"].products - phases(given, TWO, WINDOWS)["calibrate"].products
    # One block is passed by four windows and by the one that records calls: half of two products 10 x 10 x 6.
    assert added == 5 * 2 * 10 * 10 * 6


def test_experts_see_their_share_of_the_tokens():
    def products(share: float) -> float:
        block = BlockShape((Matrix(2, 3, "a", share=share),), attention=0)
        given = recipe(method="shortgpt", num_blocks=1, sparsity=None)
        return phases(given, replace(TWO, blocks=(block, block)), WINDOWS)["calibrate"].products

    assert products(0.25) == products(1.0) / 4 == 5 * 10 * 2 * 2 * 3 / 4


def test_data_free_methods_rank_and_no_more():
    works = phases(recipe(method="magnitude"), TWO, WindowShape(0, 0))
    assert total(works.values()) == works["prune"] == Work(ranked=2 * (6 + 15))
    spectra = phases(recipe(method="magnitude", alloc="alphapruning"), TWO, WindowShape(0, 0))
    assert spectra["allocate"] == Work(decomposed=2 * (2 * 3 * 2 + 3 * 5 * 3))


def test_the_dense_baseline_costs_nothing():
    given = resolve(PruneConfig())
    assert total(phases(given, TWO, WindowShape(0, 0)).values()) == Work()
    assert memory(given, TWO, WindowShape(0, 0)) == {"weights": 200}


def test_memory_by_hand():
    held = memory(recipe(), TWO, WINDOWS)
    # 4 windows of 10 tokens of 3 features in 2 bytes; a mask of 15, or 10 tokens of 3 + 2 + 5 + 3 features in 2.
    assert held == {
        "weights": 200,
        "hidden_states": 4 * 10 * 3 * 2,
        "block": max(15, 10 * 13 * 2),
        "masks": 42 // 8,
    }
    dropping = memory(recipe(method="shortgpt", num_blocks=1, sparsity=None), TWO, WINDOWS)
    assert dropping["hidden_states"] == held["hidden_states"]


def test_part_by_part_either_a_block_is_at_work_or_the_largest_part_outside_is_read():
    small, large = (memory(recipe(), replace(TWO, outside=outside), WINDOWS) for outside in (7, 70_000))
    block = memory(recipe(), TWO, WINDOWS)["block"]
    assert small == {"part": 2 * 21 * 2, "hidden_states": 4 * 10 * 3 * 2, "block": block, "masks": 0}
    assert large == {"part": 140_000 + 21 * 2}


def test_whole_attention_scores_are_held_where_attention_is_not_fused():
    eager = memory(recipe(), replace(TWO, whole_scores=8), WINDOWS)
    assert eager["block"] == 10 * 13 * 2 + 8 * 10 * 10 * (2 + 4)


def test_gradients_are_held_in_float32():
    held = memory(recipe(alloc="layerif"), TWO, WINDOWS)
    assert held["gradients"] == 4 * 42
    assert held["activations"] == int(1.5 * 2 * 10 * 13 * 2) + 10 * 7 * 16
    assert "hidden_states" not in held


def test_grams_outweigh_scores():
    wide = replace(TWO, blocks=(BlockShape((Matrix(2, 100, "a"), Matrix(2, 100, "a")), attention=0),))
    gram = 4 * 100 * 100
    assert memory(recipe(method="sparsegpt"), wide, WINDOWS)["block"] == gram + 5 * gram + 4 * 3 * 2 * 100


@given(
    rows=st.integers(1, 9),
    groups=st.integers(1, 5),
    sparsity=st.floats(0, 0.99),
    compare=st.sampled_from(["row", "matrix"]),
    pattern=st.sampled_from([None, (2, 4), (1, 4)]),
    every_tie=st.booleans(),
)
def test_zeros_are_those_that_the_mask_removes(rows, groups, sparsity, compare, pattern, every_tie):
    columns = 4 * groups
    # Only magnitude over a whole matrix removes ties, and never together with a pattern.
    every_tie = every_tie and compare == "matrix" and pattern is None
    rule = MaskRule(sparsity=sparsity, compare=compare, pattern=pattern, every_tie=every_tie)
    score = torch.randperm(rows * columns).float().reshape(rows, columns)
    assert planned_zeros(rule, rows, columns) == int((~rule.keep(score)).sum())


def test_columns_that_do_not_divide_are_refused_as_the_mask_does():
    rule = MaskRule(sparsity=0.5, compare="row", pattern=(2, 4))
    messages = set()
    for refuse in (lambda: planned_zeros(rule, 2, 6), lambda: rule.keep(torch.ones(2, 6))):
        with pytest.raises(PruningError) as caught:
            refuse()
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_work_that_is_not_done_needs_no_rate():
    assert seconds(Work(ranked=6.0), Work(ranked=2.0)) == 3.0
