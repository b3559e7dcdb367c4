"""Models whose MLPs lose channels: which ones, and what is left in memory, in checkpoints and in artifacts."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from lm_eval_pruned.config import PruneConfig, RunConfig
from lm_eval_pruned.errors import ArgumentError, PruningError
from lm_eval_pruned.models.prune_checkpoint import prune_pretrained
from lm_eval_pruned.paths import bundled_folder
from lm_eval_pruned.planning.plan import make_plan
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.fit import check_fits
from lm_eval_pruned.pruning.recipe import resolve
from tests.architectures.families import tiny_model
from tests.pruning.test_drop_blocks import mixture

QUARTER = PruneConfig(method="width", sparsity=0.25)
# Plain, a fused gate and up projection, biases and Conv1D, and MLPs that are no module of their own.
FAMILIES = ["qwen3", "phi3", "gpt2", "opt"]


@torch.no_grad()
def slow_channels(model: nn.Module, windows: Tensor, removed: int) -> list[list[int]]:
    """Score channels in plain loops, and zero what reads the removed ones before the next block is scored."""
    chosen = []
    for block in model.model.layers:
        seen: list[Tensor] = []
        handle = block.mlp.down_proj.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0][0]))
        for window in windows:
            model(window[None])
        handle.remove()
        tokens, weight = torch.cat(seen), block.mlp.down_proj.weight
        scores = []
        for channel in range(weight.shape[1]):
            norm = sum(float(value) ** 2 for value in tokens[:, channel]) ** 0.5
            scores.append(sum(abs(float(value)) for value in weight[:, channel]) * norm)
        order = sorted(range(len(scores)), key=lambda channel: (scores[channel], channel))
        weight[:, order[:removed]] = 0
        chosen.append(sorted(order[removed:]))
    return chosen


@torch.no_grad()
def test_the_channels_of_the_smallest_sums_go(model, windows):
    dense = {name: value.clone() for name, value in model.state_dict().items()}
    report = prune_model(model, QUARTER, windows)
    slow = type(model)(model.config.__class__(**{**model.config.to_dict(), "intermediate_size": 48})).eval()
    slow.load_state_dict(dense)
    kept = slow_channels(slow, windows, 12)
    state = model.state_dict()
    for index, channels in enumerate(kept):
        name = f"model.layers.{index}.mlp."
        assert torch.equal(state[f"{name}gate_proj.weight"], dense[f"{name}gate_proj.weight"][channels])
        assert torch.equal(state[f"{name}up_proj.weight"], dense[f"{name}up_proj.weight"][channels])
        assert torch.equal(state[f"{name}down_proj.weight"], dense[f"{name}down_proj.weight"][:, channels])
    assert {name for name, value in state.items() if value.shape != dense[name].shape} == {
        f"model.layers.{index}.mlp.{part}_proj.weight" for index in range(4) for part in ("gate", "up", "down")
    }
    # What reads a removed channel is zero in the slow model.
    torch.testing.assert_close(model(windows).logits, slow(windows).logits)
    assert report.achieved_sparsity == report.target_sparsity == 0.25
    assert report.prunable_weights == 4 * 3 * 48 * 32
    assert report.model_weights - report.remaining_weights == report.zero_weights == 4 * 3 * 12 * 32
    assert [(block.attn, block.mlp) for block in report.blocks] == [(0.0, 0.25)] * 4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_equals_the_model_in_memory(family, tmp_path):
    model, windows = tiny_model(family), torch.randint(3, 120, (3, 20), generator=torch.Generator().manual_seed(5))
    model.save_pretrained(tmp_path / "dense")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled_folder() / name, tmp_path / "dense")
    np.save(tmp_path / "windows.npy", windows.numpy())
    recipe = resolve(PruneConfig(method="width", sparsity=0.3, calib=str(tmp_path / "windows.npy"), calib_samples=3))
    plan = make_plan(recipe, model)
    run, output = RunConfig(artifacts=str(tmp_path / "artifacts")), tmp_path / "pruned"
    output.mkdir()
    written = prune_pretrained(str(tmp_path / "dense"), recipe, run, LoadOptions(), output=output)
    again = AutoModelForCausalLM.from_pretrained(output).eval()
    report = prune_model(model, recipe, windows, artifacts=tmp_path / "artifacts")
    assert written.fingerprint == report.fingerprint
    assert written.zero_weights == report.zero_weights == plan.zero_weights > 0
    left = sum(parameter.numel() for parameter in again.parameters())
    assert written.remaining_weights == report.remaining_weights == plan.remaining_weights == left
    assert written.model_weights == plan.model_weights > left
    fresh = tiny_model(family)
    prune_model(fresh, recipe, windows)
    with torch.no_grad():
        for one in (model, fresh):
            assert torch.equal(one(windows).logits, again(windows).logits)
        model.save_pretrained(tmp_path / "saved")
        reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
        assert torch.equal(reloaded(windows).logits, again(windows).logits)
    stored = json.loads((tmp_path / "dense" / "config.json").read_text())
    config = json.loads((output / "config.json").read_text())
    assert len([name for name in config if config[name] != stored.get(name)]) == 1


def test_propagated_dense_outputs_are_those_of_dense_blocks(model, windows):
    dense = PruneConfig(method="width", sparsity=0.25, propagate="dense")
    norms = []
    for block in model.model.layers:
        block.mlp.down_proj.register_forward_pre_hook(
            lambda _, inputs: norms.append(inputs[0].square().sum(dim=(0, 1)))
        )
    with torch.no_grad():
        model(windows)
    readers = [block.mlp.down_proj.weight.detach().clone() for block in model.model.layers]
    for block in model.model.layers:
        block.mlp.down_proj._forward_pre_hooks.clear()
    prune_model(model, dense, windows)
    for block, norm, weight in zip(model.model.layers, norms, readers, strict=True):
        kept = (weight.abs().sum(dim=0) * norm.sqrt()).argsort()[12:].sort().values
        assert torch.equal(block.mlp.down_proj.weight, weight[:, kept])


def test_models_that_cannot_be_narrowed_are_refused(windows):
    with pytest.raises(PruningError, match="has experts, and method=width narrows one MLP a block"):
        prune_model(mixture(), QUARTER, windows % 61)
    # Norms over the channels, and a choice of the largest of them, depend on those that are gone.
    for family in ("bitnet", "gemma3n_text"):
        model = tiny_model(family)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(PruningError, match="cannot be narrowed alike"):
            prune_model(model, QUARTER, windows)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_config_alone_tells_that_a_model_cannot_be_narrowed():
    recipe = resolve(QUARTER)
    with pytest.raises(PruningError, match="has experts, and method=width narrows one MLP a block"):
        check_fits(recipe, mixture().config)


def test_a_model_that_its_config_does_not_describe_is_refused(model, windows):
    del model.model.layers[3]
    with pytest.raises(PruningError, match=r"its config describes another model, in which model\.layers\.3\."):
        prune_model(model, QUARTER, windows)


@pytest.mark.skipif("apertus" not in CONFIG_MAPPING, reason="this transformers has no Apertus")
def test_a_model_that_was_saved_is_narrowed():
    model = tiny_model("apertus")
    # So `save_pretrained` leaves it; the activation of Apertus is built with the dtype itself.
    model.config.dtype = "float32"
    prune_model(model, QUARTER, torch.randint(3, 120, (2, 12), generator=torch.Generator().manual_seed(5)))
    assert model.config.intermediate_size == 48


def test_a_fraction_of_less_than_a_channel_is_refused(model, windows):
    with pytest.raises(ArgumentError, match=r"sparsity=0.02 removes none of the 48 channels of an MLP: give at least"):
        prune_model(model, PruneConfig(method="width", sparsity=0.02), windows)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alloc": "owl"}, "leave alloc=owl out"),
        ({"pattern": "2:4"}, "leave pattern=2:4 out"),
        ({"scope": "attn"}, "leave scope=attn out"),
        ({"exclude": "layers"}, "leave exclude=layers out"),
        ({"num_blocks": 1}, "num_blocks=1 is for methods that drop blocks"),
    ],
)
def test_settings_of_masks_are_refused(settings, message):
    with pytest.raises(ArgumentError, match=message):
        resolve(PruneConfig(method="width", **({} if "pattern" in settings else {"sparsity": 0.2}), **settings))


def test_an_amount_is_needed():
    with pytest.raises(ArgumentError, match="needs a sparsity, the fraction of channels"):
        resolve(PruneConfig(method="width"))


def test_a_damaged_weight_is_seen(model, windows):
    model.model.layers[3].mlp.down_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(PruningError, match=r"model\.layers\.3\.mlp\.down_proj: a weight is not a number"):
        prune_model(model, QUARTER, windows)
