"""A plan made on the meta device says what pruning then does."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.planning.architecture import read_architecture
from lm_eval_pruned.planning.plan import Plan, make_plan
from lm_eval_pruned.planning.throughput import TypicalProduct, measure_throughput
from lm_eval_pruned.pruning.artifacts.report import PruneReport
from lm_eval_pruned.pruning.calibration.source import CheckpointInfo
from lm_eval_pruned.pruning.checkpoint.meta_model import build_meta_model
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.model.decoder import find_decoder
from lm_eval_pruned.pruning.model.flops import Work
from lm_eval_pruned.pruning.model.shapes import WindowShape
from lm_eval_pruned.pruning.recipe import resolve

SAME = (
    "config", "target_sparsity", "model_weights", "prunable_weights", "zero_weights", "blocks",
)  # fmt: skip


def outline(model: PreTrainedModel, folder) -> PreTrainedModel:
    """The same model, from its config alone."""
    model.config.save_pretrained(folder)
    read = build_meta_model(str(folder), LoadOptions())
    assert all(parameter.is_meta for parameter in read.parameters())
    return read


def assert_same(plan: Plan, report: PruneReport) -> None:
    for name in SAME:
        assert getattr(plan, name) == getattr(report, name), name
    assert [{"name": one.name, "reason": one.reason} for one in plan.excluded] == report.excluded
    assert sum(plan.prunable_by_part.values()) == report.prunable_weights


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "none"},
        {"method": "none", "alloc": "uniform", "scope": "mlp"},
        {"method": "magnitude", "sparsity": 0.3},
        {"method": "magnitude", "sparsity": 0.3, "preset": "paper"},
        {"method": "magnitude", "sparsity": 0.3, "compare": "row", "scope": "attn"},
        {"method": "wanda", "sparsity": 0.73, "scope": "mlp"},
        {"method": "wanda", "pattern": "2:4"},
        {"method": "sparsegpt", "sparsity": 0.35},
        {"method": "sparsegpt", "pattern": "4:8"},
        {"method": "magnitude", "alloc": "{folder}/list.json"},
        {"method": "wanda", "sparsity": 0.4, "alloc": "layerif", "layerif_scores": "{folder}/scores.npy"},
        {
            "method": "wanda", "sparsity": 0.4, "alloc": "layerif", "layerif_scores": "{folder}/scores.npy",
            "preset": "paper", "layerif_direction": "prune",
        },
    ],
    ids=str,
)  # fmt: skip
def test_sparsities_are_those_of_a_real_run(model, windows, tmp_path, settings):
    (tmp_path / "list.json").write_text(json.dumps([0.0, 0.5, 0.25, 0.1]))
    np.save(tmp_path / "scores.npy", np.array([[1.0, 5.0], [2.0, 1.0], [4.0, 2.0], [0.5, 0.0]]))
    filled = {
        name: value.format(folder=tmp_path) if isinstance(value, str) else value for name, value in settings.items()
    }
    config = PruneConfig(**filled)
    plan = make_plan(resolve(config), outline(model, tmp_path))
    assert_same(plan, prune_model(model, config, windows))


@pytest.mark.parametrize("settings", [{}, {"scope": "attn"}, {"pattern": "2:4", "sparsity": None}], ids=str)
def test_experts_are_counted_one_by_one(mixture, windows, tmp_path, settings):
    config = PruneConfig(**{"method": "magnitude", "sparsity": 0.3, **settings})
    plan = make_plan(resolve(config), outline(mixture, tmp_path))
    assert_same(plan, prune_model(mixture, config, windows))


@pytest.mark.parametrize("alloc", ["owl", "dlp", "alphapruning", "layerif"])
def test_what_must_be_measured_is_named_and_the_mean_is_known(model, windows, tmp_path, alloc):
    config = PruneConfig(method="wanda", sparsity=0.4, alloc=alloc)
    plan = make_plan(resolve(config), outline(model, tmp_path))
    assert (plan.blocks, plan.signal) == ([], resolve(config).allocation.signal)
    report = prune_model(model, config, windows)
    assert plan.zero_weights == pytest.approx(report.zero_weights, rel=0.03)


@pytest.mark.parametrize(
    "given",
    [
        {"method": "shortgpt", "num_blocks": 1},
        {"method": "shortgpt", "sparsity": 0.6},
        {"method": "angular", "num_blocks": 2},
        {"method": "reverse", "num_blocks": 2},
        {"method": "random-blocks", "num_blocks": 2, "random_seed": 3},
    ],
    ids=str,
)
def test_dropped_blocks_are_as_many(model, windows, tmp_path, given):
    config = PruneConfig(**given)
    plan = make_plan(resolve(config), outline(model, tmp_path))
    report = prune_model(model, config, windows)
    assert plan.dropped == len(report.removed_blocks)
    assert list(plan.removed_blocks) in ([], report.removed_blocks)
    assert (plan.zero_weights, plan.target_sparsity) == (report.zero_weights, report.target_sparsity)


def test_inputs_are_shared_as_the_forward_pass_shares_them(model, mixture, tmp_path):
    recipe = resolve(PruneConfig(method="wanda", sparsity=0.5))
    for dense in (model, mixture):
        blocks = read_architecture(recipe, outline(dense, tmp_path), torch.bfloat16, whole=True).blocks
        assert len({matrix.source for matrix in blocks[1].matrices}) == 4
        assert blocks[1].attention == find_decoder(dense).blocks[1].module.self_attn.o_proj.in_features
    experts = [matrix for matrix in blocks[0].matrices if matrix.share < 1]
    assert len(experts) == 6 * 3
    assert {matrix.share for matrix in experts} == {2 / 6}
    assert len({matrix.source for matrix in experts}) == 6 * 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"method": "magnitude", "sparsity": 0.5}, (0, 0)),
        ({"method": "magnitude", "sparsity": 0.5, "alloc": "owl"}, (128, 64)),
        ({"method": "wanda", "sparsity": 0.5, "calib_samples": 3, "calib_seqlen": 7}, (3, 7)),
        ({"method": "wanda", "sparsity": 0.5, "calib": "{folder}/ids.npy"}, (5, 6)),
        # 100 chunks of 1024 characters are about 256 tokens, and the context is 64.
        ({"method": "shortgpt", "num_blocks": 1, "preset": "paper"}, (100, 64)),
    ],
    ids=str,
)
def test_the_calibration_set_has_the_size_asked_for(model, tmp_path, settings, expected):
    np.save(tmp_path / "ids.npy", np.zeros((5, 6), dtype=np.int32))
    config = PruneConfig(
        **{name: value.format(folder=tmp_path) if name == "calib" else value for name, value in settings.items()}
    )
    source = resolve(config).calibration_source(str(tmp_path))
    assert source.shape(CheckpointInfo.of(model.config)) == WindowShape(*expected)


@pytest.mark.parametrize("pattern", [None, "2:4", "3:5"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_rate_can_be_measured(pattern, dtype):
    settings = {"pattern": pattern} if pattern else {"sparsity": 0.5}
    recipe = resolve(PruneConfig(method="sparsegpt", **settings))
    wanted = Work(*(1.0,) * len(Work._fields))
    product = TypicalProduct(tokens=16, rows=20, columns=43, dtype=dtype, device="cpu")
    rates = measure_throughput(wanted, recipe.rule(0.5), product)
    assert all(rate > 0 for rate in rates)
    assert measure_throughput(Work(), recipe.rule(0.5), replace(product, tokens=0)) == Work()
