"""The pruning engine: methods against slow formulas, exact counts, reports, fingerprints and errors."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, DataError, PrunedEvalError, PruningError
from lm_eval_pruned.pruning.engine import prune_model

from . import reference


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_masks(model: nn.Module, expected: nn.Module) -> None:
    for (name, value), other in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(value, other), name


@pytest.mark.parametrize("sparsity", [0.1, 0.2, 0.5, 0.73])
def test_magnitude_equals_the_formula(model, sparsity):
    expected = copy.deepcopy(model)
    for block in expected.model.layers:
        for linear in reference.linears(block).values():
            linear.weight.data = reference.magnitude_matrix(linear.weight.data, sparsity)
    prune_model(model, PruneConfig(method="magnitude", sparsity=sparsity))
    assert_same_masks(model, expected)


@pytest.mark.parametrize("sparsity", [0.1, 0.2, 0.5, 0.73])
@pytest.mark.parametrize("propagate", ["pruned", "dense"])
def test_wanda_equals_the_formula(model, windows, sparsity, propagate):
    expected = copy.deepcopy(model)
    reference.wanda_in_place(expected, windows, sparsity, propagate=propagate)
    prune_model(model, PruneConfig(method="wanda", sparsity=sparsity, propagate=propagate), windows)
    assert_same_masks(model, expected)


def test_propagating_pruned_and_dense_activations_differs(model, windows):
    other = copy.deepcopy(model)
    prune_model(model, PruneConfig(method="wanda", sparsity=0.5), windows)
    prune_model(other, PruneConfig(method="wanda", sparsity=0.5, propagate="dense"), windows)
    first, later = (
        torch.equal(model.model.layers[index].mlp.up_proj.weight, other.model.layers[index].mlp.up_proj.weight)
        for index in (0, 3)
    )
    assert first
    assert not later


def test_owl_measures_the_dense_model_and_then_prunes_as_without_it(model, windows):
    other = copy.deepcopy(model)
    prune_model(model, PruneConfig(method="wanda", sparsity=0.5, alloc="owl", owl_lambda=0.0), windows)
    prune_model(other, PruneConfig(method="wanda", sparsity=0.5), windows)
    assert_same_masks(model, other)


@pytest.mark.parametrize(("kept", "size"), [(2, 4), (4, 8), (1, 4)])
def test_a_pattern_keeps_the_highest_of_every_m_neighbours(model, windows, kept, size):
    norms = reference.input_norms(model, model.model.layers[0], windows)
    weight = model.model.layers[0].mlp.up_proj.weight.detach().clone()
    report = prune_model(model, PruneConfig(method="wanda", pattern=f"{kept}:{size}"), windows)
    assert report.achieved_sparsity == report.target_sparsity == 1 - kept / size
    pruned = model.model.layers[0].mlp.up_proj.weight.detach()
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], size):
            columns = range(start, start + size)
            score = {
                column: abs(float(weight[row, column])) * float(norms["mlp.up_proj"][column]) for column in columns
            }
            stays = sorted(columns, key=lambda column: -score[column])[:kept]
            assert {column for column in columns if pruned[row, column] != 0} == set(stays)


def test_a_pattern_that_does_not_divide_the_columns_is_refused(model):
    with pytest.raises(PruningError, match=r"q_proj: its 32 columns do not divide into groups of 5"):
        prune_model(model, PruneConfig(method="magnitude", pattern="2:5"))


@pytest.mark.parametrize("given", [{}, {"sparsity": 0.25}])
def test_a_list_gives_every_block_its_own_sparsity(model, tmp_path, given):
    (tmp_path / "list.json").write_text("[0.0, 0.5, 0.25, 0.25]")
    config = PruneConfig(method="magnitude", alloc=str(tmp_path / "list.json"), **given)
    report = prune_model(model, config)
    assert [block.achieved for block in report.blocks] == [0.0, 0.5, 0.25, 0.25]
    assert report.target_sparsity == report.achieved_sparsity == 0.25


@pytest.mark.parametrize(
    ("content", "sparsity", "message"),
    [
        ("[0.1, 0.2]", None, "lists 2 sparsities, but the model has 4 blocks"),
        ("[0.1, 0.2, 0.3, 1.0]", None, "each 0 <= s < 1"),
        ("[0.1, 0.2, 0.3, true]", None, "each 0 <= s < 1"),
        ('{"0": 0.1}', None, "must be a list"),
        ("[0.1,", None, "is not JSON"),
        ("[0.1, 0.2, 0.3, 0.4]", 0.3, "has a mean of 0.2500, not sparsity=0.3"),
        (None, None, "does not exist"),
    ],
)
def test_a_wrong_list_is_refused(model, tmp_path, content, sparsity, message):
    path = tmp_path / "list.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PrunedEvalError, match=message):
        prune_model(model, PruneConfig(method="magnitude", alloc=str(path), sparsity=sparsity))


@pytest.mark.parametrize(("sparsity", "pattern"), [(0.2, None), (0.5, None), (None, (2, 4)), (None, (4, 8))])
def test_sparsegpt_equals_the_formula(model, windows, sparsity, pattern):
    block = model.model.layers[0]
    inputs = {name: [] for name in reference.linears(block)}
    for name, linear in reference.linears(block).items():
        linear.register_forward_pre_hook(lambda module, args, name=name: inputs[name].append(args[0].detach()[0]))
    dense = {name: linear.weight.detach().clone() for name, linear in reference.linears(block).items()}
    for window in windows:
        model(window[None])
    seen = {name: torch.cat(rows) for name, rows in inputs.items()}
    written = ":".join(map(str, pattern)) if pattern else "unstructured"
    report = prune_model(model, PruneConfig(method="sparsegpt", sparsity=sparsity, pattern=written), windows)
    for name, linear in reference.linears(block).items():
        expected = reference.sparsegpt_row_by_row(dense[name], seen[name], sparsity or 0.0, pattern=pattern)
        assert torch.equal(linear.weight == 0, expected == 0), name
        torch.testing.assert_close(linear.weight.detach().double(), expected, rtol=0, atol=1e-4)
    assert report.achieved_sparsity == pytest.approx(sparsity or 0.5, abs=1e-3)


def test_sparsegpt_changes_the_outputs_less_than_masks_alone(model, windows):
    """What it is for: with weights that make up for the removed ones, the block's outputs change less."""
    dense = model(windows).logits.detach()
    errors = {}
    for method in ("sparsegpt", "wanda", "magnitude"):
        pruned = copy.deepcopy(model)
        prune_model(pruned, PruneConfig(method=method, sparsity=0.5), windows)
        errors[method] = float((pruned(windows).logits.detach() - dense).norm())
    assert errors["sparsegpt"] < 0.9 * min(errors["wanda"], errors["magnitude"])


def test_compare_overrides_the_ranking_of_the_method(model):
    prune_model(model, PruneConfig(method="magnitude", sparsity=0.25, compare="row"))
    zeros = (model.model.layers[0].self_attn.q_proj.weight == 0).sum(dim=1)
    assert zeros.tolist() == [8] * 64


def test_bfloat16_weights_are_scored_in_float32(model, windows):
    model = model.to(torch.bfloat16)
    report = prune_model(model, PruneConfig(method="wanda", sparsity=0.5), windows)
    assert report.achieved_sparsity == 0.5
    assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16


def test_only_linears_inside_the_blocks_change(model, windows):
    before = weights(model)
    report = prune_model(model, PruneConfig(method="wanda", sparsity=0.5), windows)
    changed = {
        name.removesuffix(".weight") for name, value in model.state_dict().items() if not value.equal(before[name])
    }
    assert changed == {item.name for item in report.linears}
    assert len(changed) == 4 * len(reference.LINEARS)
    assert report.excluded == [{"name": "lm_head", "reason": "outside the decoder blocks"}]


@pytest.mark.parametrize(("scope", "linears"), [("attn", 4), ("mlp", 3)])
def test_scope_leaves_the_other_sublayer_alone(model, windows, scope, linears):
    before = weights(model)
    report = prune_model(model, PruneConfig(method="wanda", sparsity=0.5, scope=scope), windows)
    assert len(report.linears) == 4 * linears
    parts = {"attn": "self_attn", "mlp": "mlp"}
    assert all(f".{parts[scope]}." in item.name for item in report.linears)
    for name, value in model.state_dict().items():
        assert (value != before[name]).any() == any(
            item.name == name.removesuffix(".weight") for item in report.linears
        )
    assert {item["reason"] for item in report.excluded} == {"outside the decoder blocks", f"scope={scope}"}


def test_method_none_changes_nothing_and_still_reports(model):
    before = weights(model)
    assert prune_model(model, PruneConfig(alloc="owl")).achieved_sparsity == 0
    report = prune_model(model, PruneConfig())
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert (report.achieved_sparsity, report.target_sparsity) == (0.0, 0.0)
    assert report.prunable_weights == 4 * (32 * 64 * 2 + 2 * 32 * 32 + 3 * 32 * 48)


def test_the_report_counts_the_weights_and_is_json(model, windows):
    report = prune_model(model, PruneConfig(method="wanda", sparsity=0.2), windows)
    content = json.loads(json.dumps(report.as_dict()))
    zeros = sum(
        int((linear.weight == 0).sum()) for block in model.model.layers for linear in reference.linears(block).values()
    )
    assert content["zero_weights"] == zeros
    assert content["achieved_sparsity"] == zeros / content["prunable_weights"]
    assert list(content) == [
        "schema_version", "fingerprint", "config", "target_sparsity", "achieved_sparsity", "prunable_weights",
        "zero_weights", "model_weights", "blocks", "removed_blocks", "linears", "excluded", "seconds",
        "peak_memory_bytes", "software", "dense_sha256", "remaining_weights",
    ]  # fmt: skip
    assert content["blocks"][2].keys() == {"index", "attn", "mlp", "achieved"}
    assert content["linears"][0].keys() == {"name", "weights", "zeros", "target"}
    assert content["linears"][0]["name"] == "model.layers.0.self_attn.q_proj"
    assert len(content["fingerprint"]) == 64
    assert content["seconds"].keys() == {"load", "calibrate", "allocate", "prune"}
    assert content["peak_memory_bytes"] > 0
    described = {"device": "cpu", "float32_products": "ieee", "deterministic": "yes"}
    assert {name: content["software"][name] for name in described} == described


def test_tied_embeddings_are_untouched_and_counted_once(windows):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).eval()
    before = model.model.embed_tokens.weight.clone()
    report = prune_model(model, PruneConfig(method="wanda", sparsity=0.5), windows)
    assert torch.equal(model.lm_head.weight, before)
    assert report.model_weights == sum(value.numel() for value in {id(p): p for p in model.parameters()}.values())


def test_same_inputs_same_masks_and_fingerprint(model, windows):
    other = copy.deepcopy(model)
    config = PruneConfig(method="wanda", sparsity=0.3)
    first, second = prune_model(model, config, windows), prune_model(other, config, windows)
    assert_same_masks(model, other)
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize(
    "change", [{"sparsity": 0.31}, {"propagate": "dense"}, {"compare": "matrix"}, {"scope": "mlp"}], ids=str
)
def test_the_fingerprint_knows_the_settings(model, windows, change):
    settings = {"method": "wanda", "sparsity": 0.3}
    first = prune_model(copy.deepcopy(model), PruneConfig(**settings), windows)
    second = prune_model(copy.deepcopy(model), PruneConfig(**{**settings, **change}), windows)
    assert first.fingerprint != second.fingerprint


def test_the_fingerprint_knows_weights_and_windows(model, windows):
    config = PruneConfig(method="wanda", sparsity=0.3)
    other = copy.deepcopy(model)
    other.model.embed_tokens.weight.data[0, 0] += 1
    prints = {
        prune_model(copy.deepcopy(model), config, windows).fingerprint,
        prune_model(copy.deepcopy(model), config, windows.flip(0)).fingerprint,
        prune_model(other, config, windows).fingerprint,
    }
    assert len(prints) == 3


def test_the_fingerprint_knows_what_a_list_holds(model, tmp_path):
    path = tmp_path / "list.json"
    prints = set()
    for content in ("[0.1, 0.1, 0.1, 0.1]", "[0.1, 0.1, 0.1, 0.2]"):
        path.write_text(content)
        config = PruneConfig(method="magnitude", alloc=str(path))
        prints.add(prune_model(copy.deepcopy(model), config).fingerprint)
    assert len(prints) == 2


def test_training_mode_and_hooks_are_restored(model, windows):
    model.train()
    prune_model(model, PruneConfig(method="wanda", sparsity=0.3), windows)
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_nan_weights_are_named(model):
    model.model.layers[2].mlp.up_proj.weight.data[3, 4] = float("nan")
    with pytest.raises(PruningError, match=r"model\.layers\.2\.mlp\.up_proj: .*NaN"):
        prune_model(model, PruneConfig(method="magnitude", sparsity=0.3))


def test_overflowing_activations_are_named(model, windows):
    model.model.layers[1].mlp.down_proj.weight.data *= float("inf")
    with pytest.raises(PruningError, match=r"model\.layers\.2"):
        prune_model(model, PruneConfig(method="wanda", sparsity=0.3), windows)


def test_a_method_that_needs_windows_says_so(model):
    with pytest.raises(ArgumentError, match="method=wanda, alloc=uniform needs calibration windows"):
        prune_model(model, PruneConfig(method="wanda", sparsity=0.3))
    with pytest.raises(ArgumentError, match="method=magnitude, alloc=owl needs calibration windows"):
        prune_model(model, PruneConfig(method="magnitude", sparsity=0.3, alloc="owl"))


@pytest.mark.parametrize(("token", "shown"), [(-1, "-1 to"), (10**6, "to 1000000")])
@pytest.mark.parametrize("as_list", [False, True], ids=["tensor", "list"])
def test_windows_with_unknown_token_ids_are_refused(model, windows, token, shown, as_list):
    wrong = windows.clone()
    wrong[-1, -1] = token
    with pytest.raises(DataError, match=rf"have token ids from .*{shown}.*, but the model knows 0 to"):
        prune_model(model, PruneConfig(method="wanda", sparsity=0.3), [*wrong] if as_list else wrong)
    with pytest.raises(DataError, match="hold no token"):
        prune_model(model, PruneConfig(method="wanda", sparsity=0.3), windows[:0])


def test_an_expression_that_excludes_everything_is_named(model):
    with pytest.raises(PruningError, match="exclude=proj leaves no matrix to prune with scope=all: give a regular"):
        prune_model(model, PruneConfig(method="magnitude", sparsity=0.3, exclude="proj"))


def test_zeros_of_excluded_matrices_do_not_count_as_pruned_before(model):
    model.model.layers[0].mlp.up_proj.weight.data.zero_()
    config = {"method": "magnitude", "sparsity": 0.02}
    with pytest.raises(PruningError, match="are zero already"):
        prune_model(model, PruneConfig(**config))
    report = prune_model(model, PruneConfig(**config, exclude=r"0\.mlp\.up_proj"))
    assert 0.01 < report.achieved_sparsity <= 0.02


def test_a_model_with_an_encoder_is_refused():
    from transformers import T5Config, T5ForConditionalGeneration

    model = T5ForConditionalGeneration(T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    with pytest.raises(PruningError, match="has an encoder"):
        prune_model(model, PruneConfig(method="magnitude", sparsity=0.5))


def test_a_model_without_blocks_is_refused():
    with pytest.raises(PruningError, match="no list of blocks"):
        prune_model(nn.Sequential(nn.Linear(3, 3)), PruneConfig(method="magnitude", sparsity=0.5))


def test_a_model_that_is_partly_on_the_disk_is_refused(model, tmp_path):
    model.save_pretrained(tmp_path / "dense")
    device_map = {name: "cpu" for name, _ in model.named_children()} | {"model": "disk"}
    offloaded = type(model).from_pretrained(tmp_path / "dense", device_map=device_map, offload_folder=tmp_path / "disk")
    with pytest.raises(PruningError, match="left outside of memory by device_map"):
        prune_model(offloaded, PruneConfig(method="magnitude", sparsity=0.3))


def test_a_quantised_model_is_refused(model):
    model.config.quantization_config = {"quant_method": "fp8"}
    with pytest.raises(PruningError, match="prune the model it was made from"):
        prune_model(model, PruneConfig(method="magnitude", sparsity=0.3))


@pytest.mark.parametrize("settings", [{"method": "wanda"}, {"method": "magnitude", "alloc": "layerif"}], ids=str)
def test_memory_that_runs_out_is_one_sentence(model, windows, monkeypatch, settings):
    def scarce(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate\nGPU 0 has ...")

    monkeypatch.setattr(type(model.model.layers[0].mlp), "forward", scarce)
    with pytest.raises(PruningError, match=r"memory ran out .*ALLOC_FAILED.* smaller calib_seqlen") as raised:
        prune_model(model, PruneConfig(**settings, sparsity=0.2), windows)
    assert "\n" not in str(raised.value)
