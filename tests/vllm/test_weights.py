"""The weights inside vLLM's worker equal those of `pruned-hf`, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from lm_eval_pruned import cli
from lm_eval_pruned.models.hf import PrunedHFLM
from lm_eval_pruned.paths import assets_folder
from lm_eval_pruned.pruning.masks.packing import count_zeros, unpack
from lm_eval_pruned.pruning.model.decoder import find_decoder

TINY = assets_folder() / "tiny_reasoner"
EXTENSION = "tests.vllm.weights_inside.WeightsInside"
WINDOWS = {"calib_samples": 4, "calib_seqlen": 64}


def digest(weight: torch.Tensor) -> str:
    from tests.vllm.weights_inside import digest

    return digest(weight)


def digests(model: torch.nn.Module) -> dict[str, str]:
    return {linear.name: digest(linear.weight) for block in find_decoder(model).blocks for linear in block.linears}


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "wanda", "sparsity": 0.2},
        {"method": "wanda", "alloc": "owl", "sparsity": 0.3, "scope": "mlp"},
        {"method": "sparsegpt", "sparsity": 0.5},
    ],
    ids=lambda settings: ",".join(map(str, settings.values())),
)
def test_weights_of_tiny_reasoner(start, artifacts, settings):
    inside = start("tiny-reasoner", worker_extension_cls=EXTENSION, **settings)
    model = PrunedHFLM("tiny-reasoner", dtype="float32", artifacts=str(artifacts), **settings)
    rows = {linear.name: len(linear.weight) for block in find_decoder(model.model).blocks for linear in block.linears}
    (found,) = inside.model.collective_rpc("weights_inside", args=(rows,))
    assert found == digests(model.model)
    assert inside.report.fingerprint == model.report.fingerprint
    assert inside.report.as_dict()["linears"] == model.report.as_dict()["linears"]
    assert (
        0
        < inside.report.zero_weights
        == sum(
            count_zeros(linear.weight)
            for block in find_decoder(model.model).blocks
            for linear in block.linears
            if settings.get("scope") != "mlp" or linear.sublayer == "mlp"
        )
    )


def test_weights_of_tiny_reasoner_by_a_mask_file(start, artifacts, tmp_path):
    """The engine gets the file alone, and `pruned-hf` the settings that it was made with."""
    masks = tmp_path / "masks.safetensors"
    flags = ["--method", "magnitude", "--pattern", "2:4", "--dtype", "float32", "--output", str(masks)]
    assert cli.main(["prune", "--pretrained", "tiny-reasoner", "--masks-only", *flags]) == 0
    inside = start("tiny-reasoner", worker_extension_cls=EXTENSION, masks=str(masks))
    model = PrunedHFLM("tiny-reasoner", dtype="float32", artifacts="off", method="magnitude", pattern="2:4")
    rows = {linear.name: len(linear.weight) for block in find_decoder(model.model).blocks for linear in block.linears}
    (found,) = inside.model.collective_rpc("weights_inside", args=(rows,))
    assert found == digests(model.model)
    assert inside.report.as_dict()["linears"] == model.report.as_dict()["linears"]
    assert inside.report.zero_weights == sum(
        count_zeros(linear.weight) for block in find_decoder(model.model).blocks for linear in block.linears
    )


def test_weights_of_smollm2_are_masked_by_the_artifact(start, artifacts, smollm2, tmp_path):
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": f"{n} and {n} are {2 * n}. " * 40}) + "\n" for n in range(8)))
    settings = {"method": "wanda", "sparsity": 0.1, "calib": str(text), **WINDOWS}
    inside = start(str(smollm2), worker_extension_cls=EXTENSION, max_model_len=256, **settings)
    dense = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    masks = load_file(Path(artifacts, inside.report.fingerprint, "tensors.safetensors"))
    with torch.no_grad():
        for block in find_decoder(dense).blocks:
            for linear in block.linears:
                linear.weight.masked_fill_(~unpack(masks[linear.name], linear.weight.shape), 0.0)
    rows = {linear.name: len(linear.weight) for block in find_decoder(dense).blocks for linear in block.linears}
    (found,) = inside.model.collective_rpc("weights_inside", args=(rows,))
    assert found == digests(dense)


def test_weights_stored_by_input(start, tmp_path):
    """GPT-2 stores its matrices [in out], and vLLM turns them; what a pattern excludes is left alone."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=264, n_embd=64, n_layer=2, n_head=2, n_positions=256)
    source = tmp_path / "outer" / "inner"
    GPT2LMHeadModel(config).save_pretrained(source)
    AutoTokenizer.from_pretrained(TINY).save_pretrained(source)
    windows = tmp_path / "windows.npy"
    np.save(windows, np.random.default_rng(0).integers(0, 264, (4, 64)))
    settings = {"method": "wanda", "sparsity": 0.3, "calib": str(windows), "exclude": "mlp.c_proj"}
    outer = str(source.parent)
    inside = start(outer, subfolder="inner", worker_extension_cls=EXTENSION, max_model_len=256, **settings)
    model = PrunedHFLM(outer, subfolder="inner", dtype="float32", artifacts="off", **settings)
    assert inside.report.fingerprint == model.report.fingerprint
    linears = [one for block in find_decoder(model.model).blocks for one in block.linears]
    (found,) = inside.model.collective_rpc("weights_inside", args=({one.name: len(one.weight) for one in linears},))
    assert found == {one.name: digest(one.weight) for one in linears}
    assert not any(count_zeros(one.weight) for one in linears if one.name.endswith("mlp.c_proj"))


@pytest.fixture
def mixture(tmp_path: Path) -> dict[str, str]:
    """Model arguments of a small Qwen3-MoE of random weights, with calibration windows."""
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=264, hidden_size=64, intermediate_size=96, moe_intermediate_size=64, num_experts=4,
        num_experts_per_tok=2, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=32,
        max_position_embeddings=256,
    )  # fmt: skip
    source = tmp_path / "mixture"
    Qwen3MoeForCausalLM(config).save_pretrained(source)
    AutoTokenizer.from_pretrained(TINY).save_pretrained(source)
    np.save(tmp_path / "windows.npy", np.random.default_rng(0).integers(0, 264, (4, 64)))
    return {"pretrained": str(source), "calib": str(tmp_path / "windows.npy")}


def test_experts_are_pruned(start, mixture):
    """Every expert is pruned before vLLM fuses them."""
    inside = start(**mixture, method="wanda", sparsity=0.3, worker_extension_cls=EXTENSION)
    assert inside.report.linears[4].name == "model.layers.0.mlp.experts.0.gate_proj"
    (zeros,) = inside.model.collective_rpc("zeros_inside", args=("model.layers.",))
    assert zeros == inside.report.zero_weights > 0


def test_experts_are_taken_out(start, mixture):
    settings = {**mixture, "method": "reap", "sparsity": 0.25}
    inside = start(**settings)
    model = PrunedHFLM(**settings, dtype="float32", artifacts="off")
    assert model.model.config.num_experts == 3
    pairs = [("a=1;b=a+1;", " 2"), ("b mod 10?", " 7")]
    asked = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=0, task_name="", doc_id=0) for pair in pairs
    ]
    expected = [value for value, _ in model.loglikelihood(asked)]
    assert [value for value, _ in inside.loglikelihood(asked)] == pytest.approx(expected, abs=1e-3)
