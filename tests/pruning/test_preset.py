"""`preset=paper`: what its code did, from the description of it and not from ours."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.methods import METHODS
from lm_eval_pruned.pruning.model.decoder import find_decoder
from lm_eval_pruned.pruning.preset import apply_preset
from lm_eval_pruned.pruning.recipe import resolve
from lm_eval_pruned.pruning.sequential import block_influences

from . import reference


def test_magnitude_removes_every_weight_up_to_the_threshold(model):
    weight = model.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        weight.copy_(weight.bfloat16())  # few distinct values, many ties
    dense = weight.detach().clone()
    prune_model(model, PruneConfig(method="magnitude", sparsity=0.2, preset="paper"))
    threshold = sorted(dense.abs().flatten().tolist())[int(dense.numel() * 0.2)]
    assert torch.equal(weight.detach(), dense * (dense.abs() > threshold))
    assert int((weight == 0).sum()) > int(dense.numel() * 0.2)


@torch.no_grad()
def test_wanda_with_layerif_ranks_whole_matrices_and_lets_dense_activations_flow(model, windows):
    norms = [reference.input_norms(model, block, windows) for block in model.model.layers]
    dense = copy.deepcopy(model)
    report = prune_model(model, PruneConfig(method="wanda", sparsity=0.2, alloc="layerif", preset="paper"), windows)
    targets = {item.name: item.target for item in report.linears}
    for index, block in enumerate(dense.model.layers):
        for name, linear in reference.linears(block).items():
            sparsity = targets[f"model.layers.{index}.{name}"]
            scores = (linear.weight.abs() * norms[index][name]).flatten()
            linear.weight.view(-1)[scores.argsort(stable=True)[: int(scores.numel() * sparsity)]] = 0
            assert torch.equal(linear.weight, model.get_submodule(f"model.layers.{index}.{name}").weight)
    assert (report.config["compare"], report.config["propagate"]) == ("matrix", "dense")


@pytest.mark.parametrize(("method", "least"), [("wanda", 0.01), ("magnitude", 0.0)])
def test_owl_replaces_what_falls_below_zero_and_drifts(model, windows, method, least):
    """With S = 0.02 and lambda = 0.08 some block of any signal must come out negative."""
    expected = reference.owl_sparsities(model, windows, 0.02, owl_m=3.0, owl_lambda=0.08)
    assert min(expected) < 0
    config = PruneConfig(method=method, sparsity=0.02, alloc="owl", owl_m=3.0, preset="paper")
    report = prune_model(model, config, windows)
    assert [block.attn for block in report.blocks] == pytest.approx([s if s >= 0 else least for s in expected])
    assert report.target_sparsity == 0.02
    assert sum(item.target * item.weights for item in report.linears) / report.prunable_weights > 0.021


def test_layerif_is_cut_off_at_one_and_its_mean_is_not_restored(model, tmp_path):
    np.save(tmp_path / "scores.npy", np.array([[9.0, 9], [9, 9], [9, 9], [0, 0]]))
    settings = {"method": "magnitude", "sparsity": 0.5, "alloc": "layerif", "layerif_scores": f"{tmp_path}/scores.npy"}
    paper = prune_model(copy.deepcopy(model), PruneConfig(**settings, preset="paper"))
    ours = prune_model(model, PruneConfig(**settings))
    assert max(block.mlp for block in paper.blocks) == 1.0
    assert sum(block.mlp for block in paper.blocks) / 4 < 0.49
    assert max(block.mlp for block in ours.blocks) == pytest.approx(0.99)
    assert sum(block.mlp for block in ours.blocks) / 4 == pytest.approx(0.5)


def test_the_rest_is_as_always(model, windows):
    for settings in ({"method": "wanda", "sparsity": 0.2}, {"method": "wanda", "sparsity": 0.3, "alloc": "owl"}):
        pruned = [copy.deepcopy(model), copy.deepcopy(model)]
        for one, preset in zip(pruned, ("none", "paper"), strict=True):
            prune_model(one, PruneConfig(**settings, preset=preset), windows)
        first, second = (one.state_dict() for one in pruned)
        assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_shortgpt_reads_a_hundred_chunks_of_pg19_unless_told_otherwise():
    default = apply_preset(PruneConfig(method="shortgpt", num_blocks=1, preset="paper")).config
    assert (default.calib, default.calib_samples) == ("pg19", 100)
    given = PruneConfig(method="shortgpt", num_blocks=1, preset="paper", calib="mine.jsonl")
    assert apply_preset(given).config == given


@torch.no_grad()
def test_texts_of_different_lengths_count_alike(model, windows):
    """One mean a text, then the mean of those, as transformers' own hidden states have it."""
    texts = [windows[0][:7], windows[1], windows[2][:2], windows[3][:7]]
    expected = []
    for index in range(3):
        means = []
        for text in texts:
            states = model(text[None], output_hidden_states=True).hidden_states
            means.append(float(1 - torch.cosine_similarity(states[index], states[index + 1], dim=-1).mean()))
        expected.append(sum(means) / len(means))
    found = block_influences(find_decoder(model), texts, METHODS["shortgpt"])
    assert found == pytest.approx(expected, abs=1e-5)


def test_chunks_reach_a_checkpoint_through_its_tokenizer(tmp_path):
    from transformers import AutoConfig, AutoTokenizer

    from lm_eval_pruned.pruning.calibration.source import CheckpointInfo
    from lm_eval_pruned.pruning.checkpoint.resolve import resolve_pretrained

    rows = [{"text": "".join(chr(97 + (i * 7 + j) % 26) for j in range(length))} for i, length in enumerate((40, 3000))]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = PruneConfig(method="shortgpt", num_blocks=1, preset="paper", calib=f"{tmp_path}/texts.jsonl")
    source = resolve_pretrained("tiny-reasoner")
    tokenizer = AutoTokenizer.from_pretrained(source)
    info = CheckpointInfo.of(AutoConfig.from_pretrained(source), tokenizer)
    chunks = resolve(config).calibration_source(source).windows(info).windows()
    assert len({len(chunk) for chunk in chunks}) > 1


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "sparsegpt", "sparsity": 0.2},
        {"method": "wanda", "sparsity": 0.2, "alloc": "dlp"},
        {"method": "wanda", "pattern": "2:4"},
        {"method": "none"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_what_the_paper_has_not_is_refused(settings):
    with pytest.raises(ArgumentError, match=r"preset=paper was given with .*, which the paper has not"):
        apply_preset(PruneConfig(**settings, preset="paper"))
