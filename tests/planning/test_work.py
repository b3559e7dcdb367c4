"""Operation counts, against PyTorch's FLOP counter and counts by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3Config, Qwen3ForCausalLM

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.planning.architecture import read_architecture
from lm_eval_pruned.planning.work import phases
from lm_eval_pruned.pruning import engine
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.model import drop_blocks
from lm_eval_pruned.pruning.model.flops import Work, seconds, total
from lm_eval_pruned.pruning.model.shapes import BlockShape, Matrix, WindowShape
from lm_eval_pruned.pruning.recipe import resolve
from tests.pruning.hand_weights import BLOCK, TWO, WINDOWS, recipe


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
        {"alloc": "search", "search_evaluations": 3},
        {"alloc": "layerif", "scope": "attn"},
        {"method": "shortgpt", "num_blocks": 1, "sparsity": None},
        {"method": "angular", "num_blocks": 2, "sparsity": None},
        {"method": "reverse", "num_blocks": 2, "sparsity": None},
        {"method": "greedy", "num_blocks": 2, "sparsity": None},
        {"method": "greedy", "num_blocks": 1, "sparsity": None, "greedy_by": "kl"},
        {"method": "ria"},
    ],
    ids=str,
)
def test_operations_are_those_that_pytorch_counts(model, windows, settings, monkeypatch):
    # What an earlier test found out about dropping these blocks would not be tried again.
    monkeypatch.setattr(drop_blocks, "_FOUND", {})
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
    assert expected.matmul_flops + expected.fp32_matmul_flops == sum(
        counted[kind] for kind in matmul if kind in counted
    )


@pytest.mark.parametrize(("method", "choose"), [("width", "kept_channels"), ("reap", "kept_experts")])
def test_operations_of_choosing_channels_and_experts_are_those_that_pytorch_counts(
    mixture, model, windows, monkeypatch, method, choose
):
    if method == "reap" and not hasattr(mixture.model.layers[0].mlp.experts, "gate_up_proj"):
        pytest.skip("releases of transformers before 5 keep one Linear an expert")
    given = recipe(method=method)
    pruned = mixture if method == "reap" else model
    shape = read_architecture(given, pruned, torch.float32, whole=True)
    # A plan leaves out routers, 6 x 32 here, which run where experts do.
    router = (Matrix(6, 32, "router", in_scope=False),)
    blocks = (
        block._replace(attention=0, matrices=block.matrices + router * any(one.share < 1 for one in block.matrices))
        for block in shape.blocks
    )
    works = phases(given, replace(shape, blocks=tuple(blocks)), WindowShape(*windows.shape))
    counter, chosen = FlopCounterMode(display=False), getattr(engine, choose)

    def counted(*arguments, **keywords):
        with counter:
            return chosen(*arguments, **keywords)

    monkeypatch.setattr(engine, choose, counted)
    prune_model(pruned, given.config, windows)
    assert counter.get_flop_counts()["Global"][torch.ops.aten.mm] == works["calibrate"].matmul_flops


def test_operations_of_gradients_include_inputs_that_are_computed_again(windows):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 7, "head_dim": 16}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=97, num_attention_heads=4, num_key_value_heads=2, **sizes)).eval()
    windows = windows.repeat(2, 1)
    given = recipe(alloc="layerif", method="magnitude")
    shape = read_architecture(given, model, torch.float32, whole=True)
    shape = replace(shape, blocks=tuple(block._replace(attention=0) for block in shape.blocks))
    with FlopCounterMode(display=False) as counter:
        prune_model(model, given.config, windows)
    counted = counter.get_flop_counts()["Global"]
    expected = phases(given, shape, WindowShape(*windows.shape))["allocate"]
    assert expected.matmul_flops + expected.fp32_matmul_flops == counted[torch.ops.aten.mm]


def test_sparsegpt_adds_a_gram_matrix_an_input(model, windows):
    wanda, sparsegpt = (
        phases(given, read_architecture(given, model, torch.float32, whole=True), WindowShape(*windows.shape))
        for given in (recipe(), recipe(method="sparsegpt"))
    )
    assert sparsegpt["calibrate"].matmul_flops == wanda["calibrate"].matmul_flops
    tokens = windows.numel()
    # Inputs of q, k and v; of o; of gate and up; of down.
    assert sparsegpt["calibrate"].fp32_matmul_flops == 4 * tokens * 2 * (32**2 + 64**2 + 32**2 + 48**2)
    assert sparsegpt["prune"].solved == wanda["prune"].sorted == 4 * (32 * (64 + 32 + 32 + 64) + 3 * 32 * 48)


def test_attention_is_quadratic_in_the_window():
    attentive = replace(TWO, blocks=(BLOCK._replace(attention=6),) * 2)
    given = recipe(method="shortgpt", num_blocks=1, sparsity=None)
    added = (
        phases(given, attentive, WINDOWS)["calibrate"].matmul_flops
        - phases(given, TWO, WINDOWS)["calibrate"].matmul_flops
    )
    # One block is passed by four windows. Two are passed three times, and the first one again, by the window that
    # records calls, and twice by 8 tokens of it: half of two products 10 x 10 x 6 each.
    assert added == ((4 + 3 * 2 + 1) * 10 * 10 + 2 * 2 * 8 * 8) * 2 * 6


def test_experts_see_their_share_of_the_tokens():
    def products(share: float) -> float:
        block = BlockShape((Matrix(2, 3, "a", share=share),), attention=0)
        given = recipe(method="shortgpt", num_blocks=1, sparsity=None)
        return phases(given, replace(TWO, blocks=(block, block)), WINDOWS)["calibrate"].matmul_flops

    assert products(0.25) == products(1.0) / 4 == ((4 + 3 * 2 + 1) * 10 + 2 * 2 * 8) * 2 * 2 * 3 / 4


def test_data_free_methods_rank_and_no_more():
    works = phases(recipe(method="magnitude"), TWO, WindowShape(0, 0))
    assert total(works.values()) == works["prune"] == Work(sorted=2 * (6 + 15))
    spectra = phases(recipe(method="magnitude", alloc="alphapruning"), TWO, WindowShape(0, 0))
    assert spectra["allocate"] == Work(svd_flops=2 * (2 * 3 * 2 + 3 * 5 * 3))


def test_the_dense_baseline_costs_nothing():
    given = resolve(PruneConfig())
    assert total(phases(given, TWO, WindowShape(0, 0)).values()) == Work()


def test_work_that_is_not_done_needs_no_rate():
    assert seconds(Work(sorted=6.0), Work(sorted=2.0)) == 3.0
