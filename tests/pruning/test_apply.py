"""An artifact applied to the same dense model gives the pruned weights, bit for bit, without calibrating."""

from __future__ import annotations

import copy
import multiprocessing
from pathlib import Path

import pytest
import torch
from torch import nn

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, PruningError
from lm_eval_pruned.pruning.artifacts.fingerprint import weights_digest
from lm_eval_pruned.pruning.artifacts.store import Store
from lm_eval_pruned.pruning.calibration.calibration import Calibration
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.model.decoder import find_decoder

CONFIGS = [
    {"method": "magnitude", "sparsity": 0.3},
    {"method": "wanda", "sparsity": 0.3, "alloc": "owl"},
    {"method": "wanda", "pattern": "2:4"},
    {"method": "wanda", "sparsity": 0.3, "alloc": "layerif"},
    {"method": "sparsegpt", "sparsity": 0.5},
    {"method": "shortgpt", "num_blocks": 2},
    {"method": "random", "sparsity": 0.3, "random_seed": 7},
]


def never() -> torch.Tensor:
    raise AssertionError("the windows were made although the artifact was there")


@pytest.mark.parametrize("settings", CONFIGS, ids=lambda settings: "-".join(map(str, settings.values())))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_second_load_calibrates_nothing_and_gives_the_same_bits(model, windows, tmp_path, settings, dtype):
    first, second = model.to(dtype), copy.deepcopy(model)
    config = PruneConfig(**settings)
    given = Calibration("the same windows", lambda: windows)
    made = prune_model(first, config, given, artifacts=tmp_path)
    read = prune_model(second, config, Calibration("the same windows", never), artifacts=tmp_path)
    assert weights_digest(find_decoder(first)) == weights_digest(find_decoder(second))
    assert first.config.to_dict() == second.config.to_dict()
    assert read.seconds["calibrate"] == 0
    for name in ("fingerprint", "achieved_sparsity", "linears", "blocks", "removed_blocks", "target_sparsity"):
        assert getattr(made, name) == getattr(read, name), name
    assert (made.scores is None) == (settings.get("alloc") != "layerif")
    assert made.scores is None or (made.scores == read.scores).all()


def test_masks_are_a_bit_a_weight(model, windows, tmp_path):
    report = prune_model(model, PruneConfig(method="wanda", sparsity=0.3), windows, artifacts=tmp_path)
    kept = Store(folder=tmp_path).read(report.fingerprint)
    assert sum(mask.numel() for mask in kept.tensors.values()) == report.prunable_weights // 8
    assert kept.report["achieved_sparsity"] == report.achieved_sparsity


def test_the_dense_baseline_keeps_nothing(model, tmp_path):
    prune_model(model, PruneConfig(), artifacts=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"owl_m": 3.0}, True),
        ({"calib": "somewhere/else.npy"}, True),
        ({"compare": "row"}, True),
        ({"sparsity": 0.31}, False),
        ({"alloc": "owl"}, False),
        ({"propagate": "dense"}, False),
    ],
    ids=str,
)
def test_only_what_decides_the_masks_is_in_the_fingerprint(model, windows, change, same):
    settings = {"method": "wanda", "sparsity": 0.3}
    first = prune_model(copy.deepcopy(model), PruneConfig(**settings), windows)
    second = prune_model(copy.deepcopy(model), PruneConfig(**{**settings, **change}), windows)
    assert (first.fingerprint == second.fingerprint) == same


def test_owl_settings_matter_where_owl_is_used(model, windows):
    prints = set()
    for m in (3.0, 5.0):
        config = PruneConfig(method="wanda", sparsity=0.3, alloc="owl", owl_m=m)
        prints.add(prune_model(copy.deepcopy(model), config, windows).fingerprint)
    assert len(prints) == 2


def test_windows_are_asked_for_even_where_an_artifact_lies(model, windows, tmp_path):
    config = PruneConfig(method="wanda", sparsity=0.3)
    prune_model(copy.deepcopy(model), config, windows, artifacts=tmp_path)
    with pytest.raises(ArgumentError, match="needs calibration windows"):
        prune_model(model, config, artifacts=tmp_path)


def test_a_model_pruned_before_is_pruned_on_and_that_is_said(model, caplog):
    prune_model(model, PruneConfig(method="magnitude", sparsity=0.3))
    caplog.clear()
    report = prune_model(model, PruneConfig(method="magnitude", sparsity=0.4))
    assert "weights were zero before" in caplog.text
    assert report.achieved_sparsity == pytest.approx(0.4, abs=1e-3)


def test_more_zeros_than_were_asked_for_are_an_error(model):
    prune_model(model, PruneConfig(method="magnitude", sparsity=0.3))
    with pytest.raises(PruningError, match=r"are zero already, and 0\.1000 is asked for: the model was pruned before"):
        prune_model(model, PruneConfig(method="magnitude", sparsity=0.1))
    assert prune_model(model, PruneConfig()).achieved_sparsity == pytest.approx(0.3, abs=1e-3)


def test_a_failed_pruning_leaves_no_artifact_and_the_model_in_its_mode(model, windows, tmp_path):
    model.train()
    model.model.layers[1].mlp.down_proj.weight.data *= float("inf")
    with pytest.raises(Exception, match="layers"):
        prune_model(model, PruneConfig(method="wanda", sparsity=0.3), windows, artifacts=tmp_path)
    assert model.training
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def prune_here(model: nn.Module, windows: torch.Tensor, folder: Path | None, config: PruneConfig) -> str:
    torch.set_num_threads(1)
    prune_model(model, config, windows, artifacts=folder)
    return weights_digest(find_decoder(model))


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_processes_of_their_own_give_the_same_bytes(model, windows, tmp_path, method):
    """Two at once without a cache, then two at once with one, of which one makes and the other reads."""
    config = PruneConfig(method=method, sparsity=0.5, alloc="layerif")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        jobs = [
            pool.apply_async(prune_here, (copy.deepcopy(model), windows, folder, config))
            for folder in (None, None, tmp_path, tmp_path)
        ]
        digests = {job.get(timeout=120) for job in jobs}
    assert len(digests) == 1
    assert weights_digest(find_decoder(model)) not in digests
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1
