"""Mixtures that lose experts: which ones, and what is left in memory, in checkpoints and in artifacts."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

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

QUARTER = PruneConfig(method="reap", sparsity=0.25)

pytestmark = pytest.mark.skipif(
    not hasattr(mixture().model.layers[0].mlp.experts, "gate_up_proj"),
    reason="releases of transformers before 5 keep one Linear an expert",
)


def spread(model: PreTrainedModel) -> PreTrainedModel:
    """Give experts and routers weights that differ enough to tell them apart."""
    torch.manual_seed(3)
    for layer in model.model.layers:
        for parameter in layer.mlp.parameters():
            nn.init.normal_(parameter, std=0.3)
    return model


@torch.no_grad()
def slow_experts(model: PreTrainedModel, windows: Tensor, removed: int) -> list[list[int]]:
    """Route every token of the dense model by hand, and return the experts that each block keeps."""
    kept = []
    for layer in model.model.layers:
        seen: list[Tensor] = []
        handle = layer.mlp.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0][0]))
        for window in windows:
            model(window[None])
        handle.remove()
        router, experts = layer.mlp.gate.weight, layer.mlp.experts
        found: dict[int, list[float]] = {index: [] for index in range(len(router))}
        for token in torch.cat(seen):
            probabilities = (router @ token).softmax(dim=0).tolist()
            chosen = sorted(found, key=lambda index, given=probabilities: -given[index])[: layer.mlp.gate.top_k]
            for index in chosen:
                gate, up = (experts.gate_up_proj[index] @ token).chunk(2)
                output = experts.down_proj[index] @ (nn.functional.silu(gate) * up)
                share = probabilities[index] / sum(probabilities[one] for one in chosen)
                found[index].append(share * sum(float(value) ** 2 for value in output) ** 0.5)
        scores = {index: sum(own) / len(own) if own else 0.0 for index, own in found.items()}
        order = sorted(scores, key=lambda index: (scores[index], index))
        kept.append(sorted(order[removed:]))
    return kept


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral"])
@torch.no_grad()
def test_the_experts_of_the_smallest_means_go(family):
    model = spread(tiny_model(family))
    model.config.norm_topk_prob = True
    for layer in model.model.layers:
        layer.mlp.gate.norm_topk_prob = True
    windows = torch.randint(3, 120, (3, 20), generator=torch.Generator().manual_seed(5))
    dense = {name: value.clone() for name, value in model.state_dict().items()}
    kept = slow_experts(model, windows, 2)
    assert len({*map(tuple, kept)}) > 1
    report = prune_model(model, QUARTER, windows)
    state = model.state_dict()
    changed = set()
    for index, experts in enumerate(kept):
        for part in ("gate.weight", "experts.gate_up_proj", "experts.down_proj"):
            name = f"model.layers.{index}.mlp.{part}"
            assert torch.equal(state[name], dense[name][experts])
            changed.add(name)
    assert {name for name, value in state.items() if value.shape != dense[name].shape} == changed
    assert report.achieved_sparsity == report.target_sparsity == 0.25
    assert {item.target for item in report.linears} == {0.0, 1.0}
    assert all("experts" in item.name and item.zeros == item.target * item.weights for item in report.linears)
    removed = sum(dense[name].numel() - state[name].numel() for name in changed)
    assert report.model_weights - report.remaining_weights == removed > report.zero_weights > 0


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "glm4_moe"])
@torch.no_grad()
def test_an_expert_that_never_fires_goes_without_changing_a_logit(family):
    model = spread(tiny_model(family))
    windows = torch.randint(3, 120, (3, 20), generator=torch.Generator().manual_seed(5))
    unused = {}
    for index, layer in enumerate(model.model.layers):
        if (router := getattr(layer.mlp, "gate", None)) is None or not hasattr(layer.mlp, "experts"):
            continue
        router.norm_topk_prob = True
        # The two experts that the fewest tokens reach would be others in each block.
        unused[index] = [(index + 1) % 8, (index + 4) % 8]
        # Whatever the token, others win: the first coordinate of what enters the router is the same for all.
        handle = layer.post_attention_layernorm.register_forward_hook(set_first)
        assert handle is not None
        router.weight[:, 0] = 0.0
        router.weight[unused[index]] = 0.0
        router.weight[unused[index], 0] = -100.0
    expected = model(windows).logits
    prune_model(model, QUARTER, windows)
    torch.testing.assert_close(model(windows).logits, expected, rtol=1e-5, atol=1e-5)
    assert all(len(model.model.layers[index].mlp.gate.weight) == 6 for index in unused)
    assert all(float(model.model.layers[index].mlp.gate.weight.min()) > -100 for index in unused)


def set_first(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    del module, inputs
    return torch.cat([torch.ones_like(output[..., :1]), output[..., 1:]], dim=-1)


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "glm4_moe", "gpt_oss"])
def test_a_checkpoint_equals_the_model_in_memory(family, tmp_path):
    model, windows = tiny_model(family), torch.randint(3, 120, (3, 20), generator=torch.Generator().manual_seed(5))
    model.save_pretrained(tmp_path / "dense")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled_folder() / name, tmp_path / "dense")
    np.save(tmp_path / "windows.npy", windows.numpy())
    recipe = resolve(PruneConfig(method="reap", sparsity=0.3, calib=str(tmp_path / "windows.npy"), calib_samples=3))
    plan = make_plan(recipe, model)
    run, output = RunConfig(artifacts=str(tmp_path / "artifacts")), tmp_path / "pruned"
    output.mkdir()
    written = prune_pretrained(str(tmp_path / "dense"), recipe, run, LoadOptions(), output=output)
    again, loading = AutoModelForCausalLM.from_pretrained(output, output_loading_info=True)
    again.eval()
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
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
    assert [config[name] for name in config if config[name] != stored.get(name)] == [6]
    # The same tensors as a fresh checkpoint of that config has, and none of the removed experts.
    names = (set(load_file(folder / "model.safetensors")) for folder in (output, tmp_path / "saved"))
    assert next(names) == next(names)


def test_models_without_such_experts_are_refused_by_their_config(model):
    recipe = resolve(QUARTER)
    with pytest.raises(PruningError, match="Qwen3ForCausalLM has no experts, which method=reap removes"):
        check_fits(recipe, model.config)


@pytest.mark.parametrize(
    ("sparsity", "message"),
    [
        (0.2, r"sparsity=0.2 removes none of the 4 experts of a mixture: give at least 0.2500"),
        (0.75, r"leaves 1 of the 4 experts of a mixture, and a token is routed to 2: give at most 0.5000"),
    ],
)
def test_too_few_and_too_many_are_refused_by_the_config(sparsity, message):
    with pytest.raises(ArgumentError, match=message):
        check_fits(resolve(PruneConfig(method="reap", sparsity=sparsity)), mixture().config)


def test_experts_in_groups_are_refused():
    config = tiny_model("glm4_moe").config
    config.n_group = config.topk_group = 2
    with pytest.raises(PruningError, match="are in 2 groups, which would be other groups"):
        check_fits(resolve(QUARTER), config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsity": 0.25, "propagate": "dense"}, "removes whole experts: leave propagate=dense out"),
        ({"sparsity": 0.25, "alloc": "owl"}, "leave alloc=owl out"),
        ({}, "needs a sparsity, the fraction of experts"),
    ],
)
def test_settings_of_other_methods_are_refused(settings, message):
    with pytest.raises(ArgumentError, match=message):
        resolve(PruneConfig(method="reap", **settings))
