"""Allocations on a model: sparsities equal the formulas, groups and scopes hold, files of scores are read."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, DataError, MissingDataError, PruningError
from lm_eval_pruned.pruning.allocations.signals.influence import influences
from lm_eval_pruned.pruning.allocations.signals.kinds import AllocationGroup, DenseModel
from lm_eval_pruned.pruning.allocations.signals.tail_exponent import tail_exponent, tail_exponents
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.model.decoder import SUBLAYERS, find_decoder

from . import reference

PARTS = {"module": [["self_attn"], ["mlp"]], "block": [["self_attn", "mlp"]]}


@pytest.fixture
def deep_model() -> Qwen3ForCausalLM:
    """Eight blocks, so that the smoothing over five of them does something at the ends and in the middle."""
    torch.manual_seed(2)
    config = Qwen3Config(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=8, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=64,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).eval()


@pytest.mark.parametrize("method", ["wanda", "magnitude"])
@pytest.mark.parametrize("target", [0.2, 0.5])
def test_owl_equals_the_formula(model, windows, method, target):
    expected = reference.owl_sparsities(model, windows, target, owl_m=3.0, owl_lambda=0.08)
    assert max(expected) - min(expected) == pytest.approx(0.16)
    report = prune_model(model, PruneConfig(method=method, sparsity=target, alloc="owl", owl_m=3.0), windows)
    assert [block.attn for block in report.blocks] == pytest.approx(expected, abs=1e-6)
    assert [block.mlp for block in report.blocks] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("target", [0.2, 0.5])
def test_dlp_equals_the_formula(model, windows, target):
    expected = reference.dlp_sparsities(model, windows, target)
    report = prune_model(model, PruneConfig(method="magnitude", sparsity=target, alloc="dlp"), windows)
    assert max(expected) - min(expected) == pytest.approx(0.3)
    assert [block.mlp for block in report.blocks] == pytest.approx(expected, abs=1e-6)


def test_directions_that_a_matrix_lacks_do_not_count_in_its_tail_exponent():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.linalg.qr(torch.randn(rows, 20, generator=generator).double()).Q for rows in (90, 60))
    spectrum = torch.rand(20, generator=generator).double() + 0.1
    # In float32 the 40 eigenvalues that are 0 come out as rounding errors.
    low_rank = (first @ torch.diag(spectrum) @ second.T).float()
    expected = tail_exponent(torch.diag(spectrum))
    assert tail_exponent(low_rank) == pytest.approx(expected, rel=1e-4)
    assert tail_exponent(low_rank.T) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("slope", [0.05, -0.05, 0.4])
def test_arithmetic_equals_a_loop_over_shifts_and_weighs_no_excluded_block(deep_model, slope):
    exclude = r"layers\.(0|3)\."
    config = PruneConfig(method="magnitude", sparsity=0.5, alloc="arithmetic", arithmetic_slope=slope, exclude=exclude)
    report = prune_model(deep_model, config)
    left = [1, 2, 4, 5, 6, 7]
    # A slope of 0.4 would leave [0, 0.99] at both ends.
    first = min(
        np.arange(-3, 1, 1e-5), key=lambda shift: abs(np.clip([shift + slope * n for n in left], 0, 0.99).mean() - 0.5)
    )
    if slope < 0:
        first = 0.5 - slope * np.mean(left)
    expected = np.clip([first + slope * n for n in left], 0, 0.99)
    assert [report.blocks[index].mlp for index in left] == pytest.approx(expected, abs=1e-4)
    assert [report.blocks[index].attn for index in (0, 3)] == [0, 0]
    assert np.mean([report.blocks[index].attn for index in left]) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("target", [0.2, 0.5])
def test_alphapruning_equals_the_formula_and_needs_no_windows(model, target):
    expected = reference.alphapruning_sparsities(model, target)
    assert max(expected) / min(expected) == pytest.approx(1.3 / 0.7)
    report = prune_model(model, PruneConfig(method="magnitude", sparsity=target, alloc="alphapruning"))
    assert [block.attn for block in report.blocks] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("groups", ["module", "block"])
@pytest.mark.parametrize("direction", ["protect", "prune"])
def test_layerif_equals_the_formula(deep_model, windows, groups, direction):
    scores = reference.layerif_scores(deep_model, windows, parts=PARTS[groups])
    expected = [reference.layerif_sparsities(row, 0.2, direction=direction, low=0.05, high=0.4) for row in scores]
    config = PruneConfig(
        method="magnitude", sparsity=0.2, alloc="layerif", layerif_direction=direction, layerif_groups=groups
    )
    report = prune_model(deep_model, config, windows)
    np.testing.assert_allclose(report.scores, np.array(scores).T, rtol=1e-4)
    assert [block.attn for block in report.blocks] == pytest.approx(expected[0], abs=1e-6)
    assert [block.mlp for block in report.blocks] == pytest.approx(expected[-1], abs=1e-6)
    assert max(expected[0]) / min(expected[0]) == pytest.approx(8)


def test_layerif_leaves_no_trace_of_its_gradients(model, windows):
    model.lm_head.weight.requires_grad_(False)
    decoder = find_decoder(model)
    groups = [AllocationGroup.of(decoder, SUBLAYERS)]
    influences(DenseModel(decoder, groups, windows), PruneConfig())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [name for name, value in model.named_parameters() if not value.requires_grad] == ["lm_head.weight"]
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_scores_come_out_and_go_in_again(deep_model, windows, tmp_path):
    other = copy.deepcopy(deep_model)
    config = PruneConfig(method="wanda", sparsity=0.3, alloc="layerif")
    computed = prune_model(deep_model, config, windows)
    np.save(tmp_path / "scores.npy", computed.scores)
    given = PruneConfig(method="wanda", sparsity=0.3, alloc="layerif", layerif_scores=str(tmp_path / "scores.npy"))
    assert prune_model(other, given, windows).blocks == computed.blocks
    assert computed.scores.shape == (8, 2)


@pytest.mark.parametrize(
    ("scores", "settings", "message"),
    [
        (np.ones((3, 2)), {}, r"shape \[3, 2\], but the model has 4 blocks of 2 groups"),
        (np.ones(4), {}, r"give \[4, 2\]"),
        (np.ones((4, 2)), {"layerif_groups": "block"}, r"give \[4, 1\]"),
        (np.array([[1.0, np.nan]] * 4), {}, "not finite"),
        (np.array(["a"]), {}, "must hold numbers"),
        (None, {}, "does not exist"),
    ],
)
def test_wrong_scores_are_refused(model, tmp_path, scores, settings, message):
    path = tmp_path / "scores.npy"
    if scores is not None:
        np.save(path, scores)
    config = PruneConfig(method="magnitude", sparsity=0.2, alloc="layerif", layerif_scores=str(path), **settings)
    with pytest.raises((DataError, MissingDataError), match=message):
        prune_model(model, config)


def test_scores_that_are_objects_are_never_unpickled(model, tmp_path):
    np.save(tmp_path / "scores.npy", np.array([{}], dtype=object), allow_pickle=True)
    config = PruneConfig(method="magnitude", sparsity=0.2, alloc="layerif", layerif_scores=str(tmp_path / "scores.npy"))
    with pytest.raises(DataError, match=r"not a \.npy array of numbers"):
        prune_model(model, config)


def test_a_scope_takes_its_own_column_of_the_scores(model, tmp_path):
    np.save(tmp_path / "scores.npy", np.array([[0, 9], [1, 9], [2, 9], [3, 9]]))
    config = PruneConfig(
        method="magnitude", sparsity=0.2, alloc="layerif", scope="attn", layerif_scores=str(tmp_path / "scores.npy")
    )
    report = prune_model(model, config)
    attention = [block.attn for block in report.blocks]
    assert attention == sorted(attention, reverse=True)
    assert attention[0] / attention[-1] == pytest.approx(8)
    assert [block.mlp for block in report.blocks] == [0.0] * 4


@pytest.mark.parametrize("alloc", ["owl", "dlp", "alphapruning", "layerif", "arithmetic"])
@pytest.mark.parametrize("target", [0.05, 0.1, 0.2, 0.5, 0.7, 0.9])
def test_the_weighted_mean_over_the_model_is_the_target(deep_model, windows, alloc, target):
    report = prune_model(deep_model, PruneConfig(method="magnitude", sparsity=target, alloc=alloc), windows)
    mean = sum(item.weights * item.target for item in report.linears) / report.prunable_weights
    assert mean == pytest.approx(target, abs=1e-6)
    assert len({item.target for item in report.linears}) > 1


def test_layerif_gives_attention_and_mlp_each_the_mean(deep_model, windows):
    report = prune_model(deep_model, PruneConfig(method="magnitude", sparsity=0.2, alloc="layerif"), windows)
    for part in ("attn", "mlp"):
        assert sum(getattr(block, part) for block in report.blocks) / 8 == pytest.approx(0.2, abs=1e-9)


def test_float16_gradients_are_refused(model, windows):
    with pytest.raises(PruningError, match="gradients in float16 underflow: load with dtype=bfloat16"):
        prune_model(model.half(), PruneConfig(method="magnitude", sparsity=0.2, alloc="layerif"), windows)


def test_layerif_needs_a_sample_to_hold_out(model, windows):
    with pytest.raises(ArgumentError, match="at least two calibration samples"):
        prune_model(model, PruneConfig(method="magnitude", sparsity=0.2, alloc="layerif"), windows[:1])


def test_matrices_of_zeros_have_no_tail_exponent(model):
    dense = find_decoder(model)
    whole = tail_exponents(DenseModel(dense, [AllocationGroup.of(dense, SUBLAYERS)], None), PruneConfig())[0]
    model.model.layers[1].mlp.up_proj.weight.data.zero_()
    for linear in dense.blocks[2].linears:
        linear.weight.data.zero_()
    found = tail_exponents(DenseModel(dense, [AllocationGroup.of(dense, SUBLAYERS)], None), PruneConfig())[0]
    left = [one for one in dense.blocks[1].linears if not one.name.endswith("up_proj")]
    assert found[1] == pytest.approx(sum(tail_exponent(one.weight.detach()) for one in left) / len(left))
    assert found[2] == pytest.approx(float(found[[0, 1, 3]].mean()))
    assert found[[0, 3]].tolist() == whole[[0, 3]].tolist()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_spectrum_of_a_damaged_matrix_is_refused(model, value):
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = value
    with pytest.raises(PruningError, match=r"model\.layers\.1\.mlp\.up_proj: a weight is infinite or not a number"):
        prune_model(model, PruneConfig(method="magnitude", alloc="alphapruning", sparsity=0.3))
