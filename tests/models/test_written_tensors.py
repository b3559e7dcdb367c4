"""Every tensor of a checkpoint is in the written one, as it was unless it was pruned; what is incomplete is refused."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from lm_eval_pruned import cli
from lm_eval_pruned.config import PruneConfig, RunConfig
from lm_eval_pruned.errors import ArgumentError, DataError, MissingPackageError, PrunedEvalError, PruningError
from lm_eval_pruned.models import prune_checkpoint as prune_module
from lm_eval_pruned.models.hf import PrunedHFLM
from lm_eval_pruned.models.prune_checkpoint import prune_pretrained
from lm_eval_pruned.paths import bundled_folder
from lm_eval_pruned.pruning.checkpoint.formats import dequantising
from lm_eval_pruned.pruning.checkpoint.reader import Shards
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions
from lm_eval_pruned.pruning.recipe import resolve

TEXT = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
WEIGHTS = "model.safetensors"
LAST = "model.layers.2.mlp.up_proj.weight"


def _qwen3():
    return Qwen3ForCausalLM(Qwen3Config(**TEXT, head_dim=8, tie_word_embeddings=True))


def _mixtral():
    return MixtralForCausalLM(MixtralConfig(**TEXT, num_local_experts=4))


def _gemma3():
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    vision |= {"image_size": 28, "patch_size": 14}
    return Gemma3ForConditionalGeneration(Gemma3Config(text_config={**TEXT, "head_dim": 8}, vision_config=vision))


def _gemma4():
    if not hasattr(transformers, "Gemma4Config"):
        pytest.skip("this release of transformers has no Gemma 4")
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.Gemma4Config(
        text_config={**TEXT, "head_dim": 8, "global_head_dim": 8, "vocab_size_per_layer_input": 300},
        vision_config={**vision, "num_key_value_heads": 4, "head_dim": 8},
        audio_config=None,
    )
    return transformers.Gemma4ForConditionalGeneration(config)


def _qwen2_vl():
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2]}
    vision = {"embed_dim": 32, "hidden_size": 32, "depth": 3, "num_heads": 4, "patch_size": 4}
    config = Qwen2VLConfig(text_config={**TEXT, "rope_parameters": rope}, vision_config=vision)
    return Qwen2VLForConditionalGeneration(config)


def write(model: torch.nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(bundled_folder() / name, folder)
    return folder


@pytest.fixture
def source(tmp_path) -> Path:
    """A Qwen3 that says it is tied, with a head of its own, a layer for multi-token prediction, and a float32 norm."""
    torch.manual_seed(0)
    folder = write(_qwen3().to(torch.bfloat16), tmp_path / "dense")
    tensors = load_file(folder / WEIGHTS)
    tensors["lm_head.weight"] = torch.randn(300, 32).to(torch.bfloat16)
    tensors |= {"model.layers.3.eh_proj.weight": torch.randn(4, 4), "mtp.fc.weight": torch.randn(3, 3)}
    tensors["model.norm.weight"] = torch.rand(32)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    return folder


def read(folder: Path) -> dict[str, torch.Tensor]:
    tensors = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for path in folder.glob("*.bin"):
        tensors |= torch.load(path, weights_only=True)
    return tensors


def prune(source: Path, *, whole: bool = False, dtype: str = "auto", **settings: object) -> Path:
    output = source.with_name("pruned")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    options = LoadOptions(trust_remote_code=whole, dtype=dtype)
    run = RunConfig(artifacts="off")
    prune_pretrained(str(source), resolve(PruneConfig(**settings)), run, options, output=output)
    return output


def assert_only_zeroed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Check that tensors differ by zeros alone, and return the names of those that do."""
    assert after.keys() == before.keys()
    changed = set()
    for name, old in before.items():
        new = after[name]
        assert (new.dtype, new.shape) == (old.dtype, old.shape), name
        if not torch.equal(new, old):
            assert torch.equal(new, torch.where(new == 0, 0, old)), name
            changed.add(name)
    return changed


@pytest.mark.parametrize("whole", [False, True], ids=["by parts", "whole"])
@pytest.mark.parametrize("stored", ["safetensors", "bin"])
def test_what_no_class_reads_and_a_head_beside_tied_embeddings_stay(source, caplog, whole, stored):
    caplog.set_level(logging.INFO)
    before = read(source)
    if stored == "bin":
        (source / WEIGHTS).unlink()
        torch.save(before, source / "pytorch_model.bin")
    assert assert_only_zeroed(before, read(prune(source, whole=whole, method="none"))) == set()
    output = prune(source, whole=whole, method="magnitude", sparsity=0.5)
    changed = assert_only_zeroed(before, read(output))
    assert changed == {name for name in before if "_proj.weight" in name and "eh_proj" not in name}
    assert "2 tensors that the model does not read are copied as they are: model.layers.3.eh_proj.weight, mtp" in (
        caplog.text
    )
    assert json.loads((output / "config.json").read_text())["tie_word_embeddings"] is False


@pytest.mark.parametrize("whole", [False, True], ids=["by parts", "whole"])
def test_blocks_that_follow_a_dropped_one_are_renumbered(source, whole):
    output = prune(source, whole=whole, method="shortgpt", num_blocks=1, **_calibration(source))
    before, after = read(source), read(output)
    assert json.loads((output / "config.json").read_text())["num_hidden_layers"] == 2
    kept = [index for index in range(3) if _same_block(before, after, index, 0) or _same_block(before, after, index, 1)]
    assert len(kept) == 2
    assert not any(name.startswith("model.layers.3.") for name in after)
    assert torch.equal(after["model.layers.2.eh_proj.weight"], before["model.layers.3.eh_proj.weight"])
    for name in ("mtp.fc.weight", "lm_head.weight", "model.norm.weight", "model.embed_tokens.weight"):
        assert torch.equal(after[name], before[name])
    _, loading = AutoModelForCausalLM.from_pretrained(output, output_loading_info=True)
    assert not loading["missing_keys"]


def _same_block(before, after, old: int, new: int) -> bool:
    name = "model.layers.{}.mlp.up_proj.weight"
    return torch.equal(before[name.format(old)], after[name.format(new)])


def _calibration(source: Path) -> dict[str, object]:
    path = source.with_name("windows.npy")
    np.save(path, np.arange(48).reshape(3, 16))
    return {"calib": str(path), "calib_samples": 3, "calib_seqlen": 16}


@pytest.mark.parametrize("build", [_mixtral, _gemma3, _gemma4, _qwen2_vl])
def test_tensors_that_the_library_renames_or_fuses_keep_their_names(tmp_path, build):
    torch.manual_seed(0)
    source = write(build(), tmp_path / "dense")
    (source / "preprocessor_config.json").write_text('{"size": 28}')
    (source / "pruning_report.json").write_text("{}")
    (source / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    output = prune(source, method="magnitude", sparsity=0.5)
    changed = assert_only_zeroed(read(source), read(output))
    assert changed
    assert not any("vision" in name or "visual" in name or "embed" in name or "lm_head" in name for name in changed)
    assert (output / "preprocessor_config.json").read_text() == '{"size": 28}'
    assert not (output / "pruning_report.json").exists()
    assert not (output / "model.safetensors.index.json").exists()
    config = json.loads((source / "config.json").read_text())
    if AutoConfig.from_pretrained(source).tie_word_embeddings and "lm_head.weight" in read(source):
        # Before transformers 5, that of Qwen2-VL is read as if it said that its own head were tied.
        config["tie_word_embeddings"] = False
    assert json.loads((output / "config.json").read_text()) == config


def test_a_model_has_one_fingerprint_however_it_is_loaded(tmp_path):
    """Its vision tower holds parameters beside modules that have some."""
    source = write(_gemma4(), tmp_path / "dense")
    recipe, run = resolve(PruneConfig(method="magnitude", sparsity=0.5)), RunConfig(artifacts="off")
    by_parts, whole = (
        prune_pretrained(str(source), recipe, run, LoadOptions(trust_remote_code=whole)) for whole in (False, True)
    )
    assert by_parts.dense_sha256 == whole.dense_sha256
    assert by_parts.linears == whole.linears


@pytest.mark.parametrize("whole", [False, True], ids=["by parts", "whole"])
def test_token_ids_are_checked_before_any_weight_is_read(source, monkeypatch, whole):
    np.save(source.with_name("windows.npy"), [[0, 300]])
    monkeypatch.setattr(Shards, "copy_into", None)
    monkeypatch.setattr(prune_module, "load_checkpoint", None)
    with pytest.raises(DataError, match="has token ids from 0 to 300, but the model knows 0 to 299"):
        prune(source, whole=whole, method="wanda", sparsity=0.5, calib=str(source.with_name("windows.npy")))


@pytest.mark.parametrize("wrong", [{"dtype": "bf16"}, {"hidden_size": "32"}, {"quantization_config": "fp8"}], ids=str)
def test_a_config_with_a_wrong_field_is_one_sentence(source, capsys, wrong):
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, **wrong}))
    for attempt in (lambda: prune(source, method="none"), lambda: load(source), lambda: load(source, method="none")):
        with pytest.raises(DataError, match=r"its config\.json is not valid"):
            attempt()
    assert plan(source) == 2
    assert "its config.json is not valid" in capsys.readouterr().err


def test_pruned_hf_evaluates_the_head_of_the_checkpoint(source):
    """The harness ties weights once more after it has loaded them."""
    loaded = PrunedHFLM(str(source), method="none", artifacts="off")
    assert torch.equal(loaded.model.lm_head.weight, read(source)["lm_head.weight"])


def _without(folder: Path, name: str) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors[name]
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def _reshaped(folder: Path, name: str) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors[name] = tensors[name][1:].clone()
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def plan(folder: Path) -> int:
    return cli.main(["plan", "--pretrained", str(folder), "--method", "magnitude", "--sparsity", "0.5"])


def load(folder: Path, **arguments: object) -> PrunedHFLM:
    how = {} if arguments.get("method") == "none" else {"method": "magnitude", "sparsity": 0.5}
    return PrunedHFLM(str(folder), artifacts="off", **how, **arguments)


@pytest.mark.parametrize("damage", [_without, _reshaped])
def test_weights_that_would_be_random_are_refused(source, capsys, damage):
    damage(source, LAST)
    for attempt in (lambda: prune(source, method="none"), lambda: load(source), lambda: load(source, method="none")):
        with pytest.raises(DataError, match=f"{LAST}.* would be random numbers"):
            attempt()
    assert plan(source) == 2
    assert LAST in capsys.readouterr().err


def test_an_expert_that_is_missing_is_named(tmp_path):
    source = write(_mixtral(), tmp_path / "dense")
    name = next(name for name in read(source) if "experts.1." in name)
    _without(source, name)
    with pytest.raises(DataError, match=r"lacks .*experts\.1\."):
        prune(source, method="none")


def test_a_head_that_is_tied_is_not_missing(tmp_path):
    source = write(_qwen3(), tmp_path / "dense")
    assert "lm_head.weight" not in read(source)
    assert_only_zeroed(read(source), read(prune(source, method="magnitude", sparsity=0.5)))


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "awq", "bits": 4},
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "compressed-tensors", "config_groups": {}},
    ],
    ids=lambda one: one["quant_method"],
)
def test_codes_are_refused_before_loading(source, capsys, quantization):
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}))
    (source / WEIGHTS).unlink()
    kind = quantization["quant_method"]
    for attempt in (lambda: prune(source, method="magnitude", sparsity=0.5), lambda: load(source)):
        with pytest.raises(PruningError, match=rf"quantised \({kind}\)"):
            attempt()
    assert plan(source) == 2
    assert f"quantised ({kind})" in capsys.readouterr().err
    with pytest.raises(MissingPackageError, match=rf"quantised \({kind}\), and a package"):
        load(source, method="none")


def test_a_checkpoint_in_fp8_is_dequantised_and_written_without_scales(source, capsys):
    tensors, codes = load_file(source / WEIGHTS), {}
    for name in [name for name in tensors if "_proj.weight" in name]:
        weight = tensors.pop(name).float()
        scale = weight.abs().max() / 448
        codes[name] = (weight / scale).to(torch.float8_e4m3fn)
        codes[f"{name}_scale_inv"] = scale.reshape(1, 1)
    save_file({**tensors, **codes}, source / WEIGHTS, {"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    if dequantising(config["quantization_config"]) is None:
        pytest.skip("this release of transformers does not dequantise fp8")
    (source / "config.json").write_text(json.dumps(config))
    assert plan(source) == 0
    output = prune(source, method="magnitude", sparsity=0.5)
    after = read(output)
    assert not any("scale" in name or tensor.element_size() == 1 for name, tensor in after.items())
    value = codes[LAST].float() * codes[f"{LAST}_scale_inv"]
    assert torch.allclose(after[LAST].float(), torch.where(after[LAST] == 0, 0, value), rtol=1e-2)
    assert (after[LAST] == 0).float().mean() == pytest.approx(0.5, abs=0.02)
    assert "quantization_config" not in json.loads((output / "config.json").read_text())


@pytest.mark.parametrize("alone", [False, True], ids=["beside a model", "alone"])
def test_an_adapter_is_refused(source, capsys, alone):
    (source / "adapter_config.json").write_text('{"base_model_name_or_path": "some/base", "peft_type": "LORA"}')
    if alone:
        (source / "config.json").unlink()
    for attempt in (lambda: prune(source, method="magnitude", sparsity=0.5), lambda: load(source)):
        with pytest.raises(ArgumentError, match=r"adapter of some/base.*merge_and_unload"):
            attempt()
    assert plan(source) == 2
    assert "merge_and_unload" in capsys.readouterr().err


def test_a_checkpoint_in_a_subfolder(source):
    outer = source.with_name("outer")
    shutil.copytree(source, outer / "inner")
    output = source.with_name("pruned")
    output.mkdir()
    recipe = resolve(PruneConfig(method="magnitude", sparsity=0.5))
    prune_pretrained(str(outer), recipe, RunConfig(artifacts="off"), LoadOptions(subfolder="inner"), output=output)
    assert assert_only_zeroed(read(source), read(output))
    assert load(outer, subfolder="inner").report.achieved_sparsity == pytest.approx(0.5, abs=0.01)


def test_a_model_must_be_named():
    with pytest.raises(ArgumentError, match="pretrained is missing"):
        PrunedHFLM(method="none")


@pytest.mark.parametrize(
    ("implementation", "error", "message"),
    [
        ("flash_attention_2", MissingPackageError, "pip install flash-attn"),
        ("flash_attention_3", PrunedEvalError, "attention_?3"),
        ("nonsense", ArgumentError, "nonsense.* is not supported"),
    ],
)
def test_attention_that_is_not_there(source, implementation, error, message):
    with pytest.raises(error, match=f"(?i){message}"):
        load(source, attn_implementation=implementation)


def test_code_of_a_checkpoint_is_named_by_every_command(source, capsys):
    config = json.loads((source / "config.json").read_text())
    code = {"auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}, "model_type": "mine"}
    (source / "config.json").write_text(json.dumps({**config, **code}))
    for attempt in (lambda: prune(source, method="none"), lambda: load(source)):
        with pytest.raises(ArgumentError, match="give trust_remote_code=True"):
            attempt()
    assert plan(source) == 2
    assert "give trust_remote_code=True" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [{"load_in_4bit": True}, {"gptqmodel": True}])
def test_quantising_on_loading_is_refused_with_a_method(source, arguments):
    with pytest.raises(PrunedEvalError, match="quantises the weights while they are loaded"):
        load(source, **arguments)


def test_zeros_that_were_there_count_and_need_no_calibration_to_be_too_many(source):
    tensors = load_file(source / WEIGHTS)
    tensors[LAST][0] = 0
    save_file(tensors, source / WEIGHTS, {"format": "pt"})
    output = prune(source, method="wanda", sparsity=0.2, **_calibration(source))
    after = read(output)[LAST]
    zeros = (after == 0).sum(dim=1)
    assert zeros[0] == 32
    assert set(zeros[1:].tolist()) == {6}
    with pytest.raises(PruningError, match=r"are zero already, and 0\.1000 is asked for"):
        prune(output.rename(source.with_name("sparse")), method="wanda", sparsity=0.1, **_calibration(source))
