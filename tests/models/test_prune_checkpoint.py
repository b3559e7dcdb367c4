"""Pruning of a checkpoint to a new one: the generation config is copied unchanged, and the note is true or ignored."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from lm_eval_pruned.commands.prune import prune_checkpoint
from lm_eval_pruned.config import PruneConfig, RunConfig
from lm_eval_pruned.files import NOTE_FILE
from lm_eval_pruned.models.prune_checkpoint import prune_pretrained
from lm_eval_pruned.paths import bundled_folder
from lm_eval_pruned.pruning.checkpoint.note import read_note
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions
from lm_eval_pruned.pruning.recipe import resolve

# Read by every transformers, and refused by most when it is to be written: nothing is sampled at this temperature.
ODD = {"temperature": 0.9, "top_p": 0.6, "eos_token_id": 258}


@pytest.mark.parametrize("trust", [False, True], ids=["offloaded", "loaded whole"])
@pytest.mark.parametrize("content", [None, ODD], ids=["none", "odd"])
def test_the_generation_config_stays_as_it_is(tmp_path, trust, content):
    source, output = tmp_path / "dense", tmp_path / "pruned"
    shutil.copytree(bundled_folder(), source)
    output.mkdir()
    (source / "generation_config.json").unlink(missing_ok=True)
    if content is not None:
        (source / "generation_config.json").write_text(json.dumps(content))
    recipe, run = resolve(PruneConfig(method="magnitude", sparsity=0.5)), RunConfig(artifacts="off")
    prune_pretrained(str(source), recipe, run, LoadOptions(trust_remote_code=trust), output=output)
    written = output / "generation_config.json"
    assert (json.loads(written.read_text()) if written.exists() else None) == content


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint pruned from the bundled model, and its report."""
    folder = tmp_path_factory.mktemp("pruned")
    recipe, run = resolve(PruneConfig(method="magnitude", sparsity=0.5)), RunConfig(artifacts="off")
    return folder, prune_checkpoint("tiny-reasoner", recipe, run, LoadOptions(), folder)


def test_a_checkpoint_knows_its_original(checkpoint):
    folder, report = checkpoint
    note = read_note(str(folder), {})
    assert note is not None
    assert note["original"] == {"pretrained": "tiny-reasoner"}
    assert note["config"]["method"] == "magnitude"
    for name in ("fingerprint", "achieved_sparsity", "dense_sha256", "removed_blocks"):
        assert note[name] == getattr(report, name)
    assert len(report.dense_sha256) == 64


@pytest.mark.parametrize("arguments", [{"peft": "x"}, {"gguf_file": "x.gguf"}])
def test_a_note_says_nothing_of_weights_from_elsewhere(checkpoint, arguments):
    assert read_note(str(checkpoint[0]), arguments) is None


def _tune(folder):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    # Zeros stay zero, as under sparse fine-tuning.
    tensors["model.layers.0.mlp.up_proj.weight"] *= 1.01
    save_file(tensors, file, {"format": "pt"})


def _replace(folder):
    shutil.copyfile(bundled_folder() / "model.safetensors", folder / "model.safetensors")


@pytest.mark.parametrize("tamper", [_tune, _replace, lambda folder: (folder / "adapter_model.safetensors").touch()])
def test_a_note_beside_other_weights_claims_nothing(checkpoint, tmp_path, caplog, tamper):
    copy = shutil.copytree(checkpoint[0], tmp_path / "copy")
    assert read_note(str(copy), {}) is not None
    tamper(copy)
    assert read_note(str(copy), {}) is None
    assert "was written for other weights" in caplog.text


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_files": {}, "original": {}}', '{"method": "wanda"}'])
def test_what_is_not_a_note_is_ignored(checkpoint, tmp_path, content):
    copy = shutil.copytree(checkpoint[0], tmp_path / "copy")
    (copy / NOTE_FILE).write_text(content)
    assert read_note(str(copy), {}) is None
