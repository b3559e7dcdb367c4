"""Block-wise pruning of an offloaded checkpoint equals pruning in memory, to the bit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from time import sleep

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import DataError
from lm_eval_pruned.models import prune_checkpoint
from lm_eval_pruned.models.prune_checkpoint import prune_offloaded
from lm_eval_pruned.paths import assets_folder
from lm_eval_pruned.pruning.artifacts.fingerprint import weights_digest
from lm_eval_pruned.pruning.artifacts.report import Stopwatch
from lm_eval_pruned.pruning.calibration.calibration import Calibration
from lm_eval_pruned.pruning.calibration.replay import NeedsWholeModelError
from lm_eval_pruned.pruning.checkpoint import writer as writing
from lm_eval_pruned.pruning.checkpoint.open_offloaded import OffloadedCheckpoint, open_offloaded
from lm_eval_pruned.pruning.checkpoint.reader import Shards
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions
from lm_eval_pruned.pruning.checkpoint.writer import CheckpointWriter
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.model.decoder import find_decoder
from lm_eval_pruned.pruning.recipe import resolve
from tests.pruning.test_decoder import FAMILIES, build

SETTINGS = [
    {"method": "none"},
    {"method": "magnitude", "sparsity": 0.3},
    {"method": "magnitude", "sparsity": 0.3, "alloc": "alphapruning", "scope": "mlp"},
    {"method": "wanda", "sparsity": 0.3},
    {"method": "wanda", "sparsity": 0.3, "alloc": "owl", "propagate": "dense"},
    {"method": "wanda", "pattern": "2:4", "alloc": "uniform"},
    {"method": "wanda", "sparsity": 0.3, "alloc": "dlp"},
    {"method": "sparsegpt", "sparsity": 0.5},
    {"method": "shortgpt", "num_blocks": 2},
    {"method": "ria", "sparsity": 0.3},
    {"method": "random", "sparsity": 0.3, "random_seed": 1},
    {"method": "angular", "num_blocks": 2},
    {"method": "reverse", "num_blocks": 1},
]
SAME = ("fingerprint", "linears", "blocks", "removed_blocks", "target_sparsity", "model_weights", "excluded", "config")


def checkpoint(model: torch.nn.Module, folder: Path, **settings: object) -> Path:
    """Save a model with the tokenizer of the bundled one."""
    model.save_pretrained(folder, **settings)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((assets_folder() / "tiny_reasoner" / name).read_bytes())
    return folder


def open_checkpoint(source: Path, dtype: str = "auto") -> OffloadedCheckpoint | None:
    return open_offloaded(str(source), LoadOptions(dtype=dtype))


def prune_on_disk(source: Path, settings: dict[str, object], windows: torch.Tensor, output: Path, **given: object):
    opened = open_checkpoint(source, given.pop("dtype", "auto"))
    assert opened is not None
    assert all(parameter.is_meta for parameter in opened.model.parameters())
    output.mkdir()
    report = prune_offloaded(
        opened,
        resolve(PruneConfig(**settings)),
        Calibration.of(windows),
        output=output,
        stopwatch=Stopwatch(),
        **{"artifacts": None, **given},
    )
    assert all(parameter.is_meta for parameter in opened.model.parameters())
    return report


def assert_same(source: Path, settings: dict[str, object], windows: torch.Tensor, output: Path, **given: object):
    model = AutoModelForCausalLM.from_pretrained(source, dtype=given.get("dtype", "auto"))
    expected = prune_model(model, PruneConfig(**settings), windows)
    report = prune_on_disk(source, settings, windows, output, **given)
    for name in SAME:
        assert getattr(report, name) == getattr(expected, name), name
    written = AutoModelForCausalLM.from_pretrained(output, dtype="auto")
    assert written.dtype == model.dtype
    assert weights_digest(find_decoder(written)) == weights_digest(find_decoder(model))
    assert written.config.num_hidden_layers == model.config.num_hidden_layers
    with torch.no_grad():
        assert torch.equal(written(windows[:1]).logits, model.eval()(windows[:1]).logits)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(map(str, settings.values())))
def test_weights_and_report_are_those_of_memory(model, windows, tmp_path, settings):
    source = checkpoint(model.to(torch.bfloat16), tmp_path / "dense", max_shard_size="20kB")
    assert len([*source.glob("*.safetensors")]) > 3
    assert_same(source, settings, windows, tmp_path / "pruned")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("settings", [{"method": "wanda", "sparsity": 0.5}, {"method": "shortgpt", "num_blocks": 1}])
def test_every_family(family, settings, tmp_path):
    source = checkpoint(build(family), tmp_path / "dense")
    windows = torch.randint(1, 61, (3, 20), generator=torch.Generator().manual_seed(5))
    stored, known = load_file(source / "model.safetensors").keys(), build(family).state_dict().keys()
    if family == "GPTNeoX" and not stored <= known:
        assert open_checkpoint(source) is None
    else:
        assert_same(source, settings, windows, tmp_path / "pruned")


def test_weights_are_converted_as_they_are_read(model, windows, tmp_path):
    source = checkpoint(model.to(torch.bfloat16), tmp_path / "dense")
    assert_same(source, {"method": "wanda", "sparsity": 0.3}, windows, tmp_path / "pruned", dtype="float32")


def test_a_tied_head_is_neither_read_nor_written_twice(windows, tmp_path):
    model = build("Qwen3")
    model.config.tie_word_embeddings = True
    model.tie_weights()
    source = checkpoint(model, tmp_path / "dense")
    windows = windows % 60
    assert_same(source, {"method": "wanda", "sparsity": 0.3}, windows, tmp_path / "pruned")
    assert load_file(tmp_path / "pruned/model.safetensors").keys() == load_file(source / "model.safetensors").keys()


def test_large_checkpoints_are_written_in_shards(model, windows, tmp_path, monkeypatch):
    @dataclass(slots=True, kw_only=True)
    class SmallShards(CheckpointWriter):
        shard_bytes: int = 20_000

    monkeypatch.setattr(prune_checkpoint, "CheckpointWriter", SmallShards)
    source = checkpoint(model, tmp_path / "dense")
    assert_same(source, {"method": "magnitude", "sparsity": 0.3}, windows, tmp_path / "pruned")
    assert len([*(tmp_path / "pruned").glob("*.safetensors")]) > 3


@pytest.mark.parametrize("settings", [SETTINGS[3], SETTINGS[7], SETTINGS[8]], ids=["wanda", "sparsegpt", "shortgpt"])
def test_memory_and_disk_read_the_artifacts_of_each_other(model, windows, tmp_path, settings):
    source = checkpoint(model, tmp_path / "dense")
    config = PruneConfig(**settings)

    def in_memory(artifacts: Path):
        loaded = AutoModelForCausalLM.from_pretrained(source)
        report = prune_model(loaded, config, windows, artifacts=artifacts)
        return weights_digest(find_decoder(loaded)), report

    made = prune_on_disk(source, settings, windows, tmp_path / "first", artifacts=tmp_path / "of disk")
    read = prune_on_disk(source, settings, windows, tmp_path / "second", artifacts=tmp_path / "of disk")
    assert read.linears == made.linears
    assert read.seconds["calibrate"] == 0
    assert [*(tmp_path / "of disk").glob("*.spill")] == []
    digest, report = in_memory(tmp_path / "of disk")
    assert report.seconds["calibrate"] == 0
    in_memory(tmp_path / "of memory")
    third = prune_on_disk(source, settings, windows, tmp_path / "third", artifacts=tmp_path / "of memory")
    assert third.seconds["calibrate"] == 0
    for name in ("first", "second", "third"):
        assert weights_digest(find_decoder(AutoModelForCausalLM.from_pretrained(tmp_path / name))) == digest


@pytest.mark.parametrize("settings", [SETTINGS[4], SETTINGS[8]], ids=["wanda-owl", "shortgpt"])
def test_a_block_and_the_next_one_are_in_memory_at_a_time(model, windows, tmp_path, settings):
    opened = open_checkpoint(checkpoint(model, tmp_path / "dense"))
    blocks = [block.module for block in opened.decoder.blocks]
    present = []

    def count(*_):
        present.append(sum(not any(weight.is_meta for weight in block.parameters()) for block in blocks))

    for block in blocks:
        block.mlp.register_forward_pre_hook(count)
    recipe, calibration = resolve(PruneConfig(**settings)), Calibration.of(windows)
    prune_offloaded(opened, recipe, calibration, artifacts=None, output=None, stopwatch=Stopwatch())
    assert max(present) <= 2 < len(blocks)


@pytest.mark.parametrize(
    ("index", "times"),
    [(1, 2), (3, 2), (7, 2), (2, 2), (4, 3), (8, 3)],
    ids=["magnitude", "wanda", "sparsegpt", "alphapruning", "owl", "shortgpt"],
)
def test_how_often_a_block_is_read(model, windows, tmp_path, monkeypatch, index, times):
    source = checkpoint(model, tmp_path / "dense")
    reads = counted_reads(monkeypatch)
    # The first block is read once more to see what it returns, the last one is never dropped.
    names = [f"model.layers.{block}.self_attn.q_proj.weight" for block in (1, 2)]
    prune_on_disk(source, SETTINGS[index], windows, tmp_path / "pruned", artifacts=tmp_path / "artifacts")
    assert max(reads[name] for name in names) == times
    reads.clear()
    # With the masks of the same weights at hand, they are hashed and pruned, and no block is run.
    prune_on_disk(source, SETTINGS[index], windows, tmp_path / "again", artifacts=tmp_path / "artifacts")
    assert max(reads[name] for name in names) == 2


def counted_reads(monkeypatch) -> Counter[str]:
    """Count how often each tensor of a checkpoint is read, in whatever way."""
    reads = Counter[str]()
    slices, read_each = Shards.slices, Shards.read_each

    def sliced(self: Shards, name: str, shape: list[int]):
        reads.update([name])
        return slices(self, name, shape)

    def read(self: Shards, names: Iterable[str]):
        for name, tensor in read_each(self, names):
            reads.update([name])
            yield name, tensor

    monkeypatch.setattr(Shards, "slices", sliced)
    monkeypatch.setattr(Shards, "read_each", read)
    return reads


@pytest.mark.parametrize("settings", [SETTINGS[3], SETTINGS[4], SETTINGS[8]], ids=["wanda", "owl", "shortgpt"])
@pytest.mark.parametrize("samples", [1, 4])
def test_blocks_that_leave_values_for_later_ones_are_found_before_they_are_pruned(
    model, windows, tmp_path, monkeypatch, settings, samples
):
    opened = open_checkpoint(checkpoint(model, tmp_path / "dense"))
    place: dict[str, torch.Tensor] = {}
    for block in opened.decoder.blocks[1:3]:
        before = block.module.mlp.forward
        monkeypatch.setattr(block.module.mlp, "forward", _remembering(before, place))
    output = tmp_path / "pruned"
    output.mkdir()
    with pytest.raises(NeedsWholeModelError, match=r"model\.layers\.\d computes something else"):
        prune_offloaded(
            opened,
            resolve(PruneConfig(**settings)),
            Calibration.of(windows[:samples]),
            artifacts=None,
            output=output,
            stopwatch=Stopwatch(),
        )
    assert [*output.iterdir()] == []
    assert all(parameter.is_meta for parameter in opened.model.parameters())


def _remembering(forward, place: dict[str, torch.Tensor]):
    """Add what the last call of any such block left."""

    def remembering(hidden: torch.Tensor) -> torch.Tensor:
        left = place.get("left", 0)
        place["left"] = hidden.mean()
        return forward(hidden) + left

    return remembering


def test_a_writer_that_is_left_before_its_end_has_written_what_it_had_begun(monkeypatch, tmp_path):
    def slowly(tensors, path, metadata):
        sleep(0.2)
        save_file(tensors, path, metadata)

    monkeypatch.setattr(writing, "save_file", slowly)
    with CheckpointWriter(folder=tmp_path, shard_bytes=4) as writer:
        writer.add({"a": torch.zeros(1)})
    assert [path.name for path in tmp_path.iterdir()] == ["model-00001.safetensors"]


def test_torn_and_missing_files_are_named(model, windows, tmp_path):
    source = checkpoint(model, tmp_path / "dense", max_shard_size="20kB")
    torn, missing = sorted(source.glob("*.safetensors"))[:2]
    whole = torn.read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=f"{torn.name} is torn or cannot be read .*: download the checkpoint again"):
        prune_on_disk(source, {"method": "magnitude", "sparsity": 0.3}, windows, tmp_path / "pruned")
    missing.unlink()
    with pytest.raises(DataError, match=f"lacks {missing.name}, which its index names"):
        open_checkpoint(source)


def test_a_tensor_of_another_shape_is_named(model, windows, tmp_path):
    source = checkpoint(model, tmp_path / "dense")
    tensors = load_file(source / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({**tensors, name: tensors[name][1:].clone()}, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=rf"{name} in .* has the shape \[47, 32\], and not \[48, 32\]"):
        prune_on_disk(source, {"method": "magnitude", "sparsity": 0.3}, windows, tmp_path / "pruned")


@pytest.mark.parametrize("reason", ["quantised", "no safetensors", "other names"])
def test_what_cannot_be_read_part_by_part_is_loaded_as_a_whole(model, tmp_path, reason):
    source = checkpoint(model, tmp_path / "dense")
    tensors = load_file(source / "model.safetensors")
    if reason == "quantised":
        config = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "fp8"}}))
    else:
        (source / "model.safetensors").unlink()
    if reason == "other names":
        save_file({f"my.{name}": tensor for name, tensor in tensors.items()}, source / "model.safetensors")
    assert open_checkpoint(source) is None
