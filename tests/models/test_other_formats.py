"""Checkpoints in other formats: GGUF, MXFP4, quantisations that transformers does not know, folders without config."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GptOssConfig, GptOssForCausalLM

from lm_eval_pruned import cli
from lm_eval_pruned.errors import ArgumentError, MissingDataError, MissingPackageError, PruningError
from lm_eval_pruned.models.hf import PrunedHFLM
from lm_eval_pruned.paths import bundled_folder
from lm_eval_pruned.pruning.checkpoint import resolve as resolve_module
from tests.models.test_written_tensors import TEXT, WEIGHTS, prune, read, write

PRUNED = {"method": "magnitude", "sparsity": 0.25}


def load(folder: Path, **arguments: object) -> PrunedHFLM:
    return PrunedHFLM(pretrained=str(folder), artifacts="off", batch_size=2, **arguments)


@pytest.fixture
def gguf_folder(tmp_path) -> Path:
    """A Llama of one block as `tiny.gguf` with eight bits a weight, and nothing else."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(str(tmp_path / "tiny.gguf"), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_block_count(1)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(16)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(40)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*(chr(ord("A") + index) for index in range(37)), "AB", "CD", "<eos>"])
    writer.add_token_types([1] * 39 + [3])
    # transformers before 5 reads an array of one text as that text.
    writer.add_token_merges(["A B", "C D"])
    writer.add_bos_token_id(39)
    writer.add_eos_token_id(39)
    shapes = {
        "token_embd": (40, 64), "output_norm": (64,), "output": (40, 64), "blk.0.attn_norm": (64,),
        "blk.0.ffn_norm": (64,), "blk.0.attn_q": (64, 64), "blk.0.attn_k": (32, 64), "blk.0.attn_v": (32, 64),
        "blk.0.attn_output": (64, 64), "blk.0.ffn_gate": (96, 64), "blk.0.ffn_up": (96, 64), "blk.0.ffn_down": (64, 96),
    }  # fmt: skip
    rng, kind = np.random.default_rng(0), gguf.GGMLQuantizationType.Q8_0
    for name, shape in shapes.items():
        values = rng.normal(size=shape).astype(np.float32)
        if len(shape) == 2:
            writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path


def test_a_gguf_file_is_dequantised_and_pruned(gguf_folder):
    dense = AutoModelForCausalLM.from_pretrained(gguf_folder, gguf_file="tiny.gguf").state_dict()
    pruned = load(gguf_folder, gguf_file="tiny.gguf", **PRUNED)
    assert pruned.report.achieved_sparsity == pytest.approx(0.25, abs=0.01)
    for name, weight in pruned.model.state_dict().items():
        assert torch.equal(weight, torch.where(weight == 0, 0, dense[name].to(weight.dtype))), name


def test_what_a_gguf_file_lacks_is_one_sentence(gguf_folder, monkeypatch, capsys):
    with pytest.raises(MissingDataError, match=r"gguf_file=none\.gguf is not in .*: it holds tiny\.gguf"):
        load(gguf_folder, gguf_file="none.gguf", **PRUNED)
    with pytest.raises(MissingDataError, match=r"has no config\.json, but GGUF files: give gguf_file=tiny\.gguf"):
        load(gguf_folder, **PRUNED)
    with pytest.raises(ArgumentError, match=rf"give pretrained={gguf_folder} and gguf_file=tiny\.gguf"):
        load(gguf_folder / "tiny.gguf", **PRUNED)
    for command in (["plan"], ["prune", "--output", str(gguf_folder / "new")]):
        assert cli.main([*command, "--pretrained", str(gguf_folder), "--method", "magnitude", "--sparsity", "0.2"]) == 2
        assert "but GGUF files: give gguf_file=tiny.gguf, which pruned-hf alone reads" in capsys.readouterr().err
    assert not (gguf_folder / "new").exists()
    monkeypatch.setattr(resolve_module, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="pip install gguf"):
        load(gguf_folder, gguf_file="tiny.gguf", **PRUNED)


@pytest.mark.parametrize("inside", [True, False], ids=["checkpoints inside", "empty"])
def test_a_folder_without_a_config(tmp_path, capsys, inside):
    (tmp_path / "outer").mkdir()
    wanted = "which every checkpoint of transformers has: give its folder"
    if inside:
        shutil.copytree(bundled_folder(), tmp_path / "outer" / "checkpoint-20")
        wanted = f"but folders inside it have: give pretrained={tmp_path}/outer/checkpoint-20"
    with pytest.raises(MissingDataError, match=rf"outer has no config\.json, {wanted}"):
        load(tmp_path / "outer", **PRUNED)
    assert cli.main(["plan", "--pretrained", str(tmp_path / "outer")]) == 2
    assert wanted in capsys.readouterr().err


def mxfp4(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Experts [expert in out] that blocks [expert out block 16] of two codes a byte stand for."""
    values = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    halves = torch.stack([codes & 15, codes >> 4], dim=-1).flatten(-2).long()
    signed = values[halves & 7] * torch.where(halves > 7, -1, 1)
    return (signed * torch.exp2(scales.float() - 127)[..., None]).flatten(-2).transpose(1, 2)


def test_mxfp4_is_dequantised_and_written_without_codes(tmp_path, capsys):
    sizes = {**TEXT, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 16}
    config = GptOssConfig(**sizes, num_local_experts=2, num_experts_per_tok=1, layer_types=["full_attention"])
    source = write(GptOssForCausalLM(config).to(torch.bfloat16), tmp_path / "dense")
    tensors, wanted = load_file(source / WEIGHTS), {}
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        members, inputs, outputs = tensors.pop(name).shape
        codes = torch.randint(256, (members, outputs, inputs // 32, 16), dtype=torch.uint8)
        scales = torch.randint(120, 124, codes.shape[:-1], dtype=torch.uint8)
        tensors |= {f"{name}_blocks": codes, f"{name}_scales": scales}
        wanted[name] = mxfp4(codes, scales)
    save_file(tensors, source / WEIGHTS, {"format": "pt"})
    content = json.loads((source / "config.json").read_text())
    quantization = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (source / "config.json").write_text(json.dumps({**content, "quantization_config": quantization}))
    assert cli.main(["plan", "--pretrained", str(source), "--method", "magnitude", "--sparsity", "0.25"]) == 0
    after = read(prune(source, **PRUNED))
    assert not any(name.endswith(("_blocks", "_scales")) for name in after)
    for name, value in wanted.items():
        kept = after[name].float()
        assert torch.equal(kept, torch.where(kept == 0, 0, value)), name
        assert (kept == 0).float().mean() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("quantization", [{"quant_algo": "NVFP4"}, {"quant_method": "exl2", "bits": 4}])
def test_what_transformers_cannot_load_is_refused_without_a_method(tmp_path, capsys, quantization):
    shutil.copytree(bundled_folder(), tmp_path / "dense")
    config = json.loads((tmp_path / "dense" / "config.json").read_text())
    (tmp_path / "dense" / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}))
    kind = next(value for value in quantization.values() if isinstance(value, str))
    with pytest.raises(PruningError, match=rf"quantised \({kind}\), and this release of transformers cannot load"):
        load(tmp_path / "dense")
    for command in (["plan"], ["prune", "--output", str(tmp_path / "new")]):
        assert cli.main([*command, "--pretrained", str(tmp_path / "dense")]) == 2
        assert f"quantised ({kind}), and this release" in capsys.readouterr().err
