"""Preparing a model for vLLM: pruned in a child process, reused by its files, with the weights of `prune`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_eval_pruned.config import PruneConfig, RunConfig
from lm_eval_pruned.errors import DataError, MissingDataError, PruningError
from lm_eval_pruned.models.prune_checkpoint import prune_pretrained
from lm_eval_pruned.models.vllm import prepare as prepare_module
from lm_eval_pruned.models.vllm.prepare import prepare
from lm_eval_pruned.models.vllm.prepare_process import Job, Prepared, prepare_here
from lm_eval_pruned.paths import assets_folder
from lm_eval_pruned.pruning.artifacts.apply import PrunedStream
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions
from lm_eval_pruned.pruning.recipe import resolve

TINY = assets_folder() / "tiny_reasoner"
WINDOWS = {"calib_samples": 4, "calib_seqlen": 32}


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    """Calibration text: much less of it than the bundled model brings."""
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    path.write_text(json.dumps({"text": "a=1;b=a+2;" * 400}) + "\n")
    return path


def job(folder: Path, source: Path = TINY, **settings: object) -> Job:
    artifacts = str(folder / "artifacts")
    return Job.of(str(source), PruneConfig(**settings), artifacts=artifacts, thinking="auto", options=LoadOptions())


def in_place(wanted: Job) -> dict[str, torch.Tensor]:
    """The weights that `prune` writes."""
    run = RunConfig(artifacts="off")
    with TemporaryDirectory() as folder:
        output = Path(folder)
        prune_pretrained(wanted.source, wanted.recipe, run, LoadOptions(), output=output)
        return AutoModelForCausalLM.from_pretrained(output).state_dict()


def streamed(made: Prepared) -> tuple[dict[str, torch.Tensor], PrunedStream]:
    stream = PrunedStream.open(Path(made.artifact))
    weights = load_file(Path(made.pretrained, "model.safetensors"))
    before = {name: value.clone() for name, value in weights.items()}
    pruned = dict(stream(iter(weights.items())))
    assert all(torch.equal(weights[name], before[name]) for name in weights)
    return pruned, stream


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "wanda", "sparsity": 0.2},
        {"method": "magnitude", "pattern": "2:4", "scope": "attn"},
        {"method": "magnitude", "alloc": "layerif", "sparsity": 0.1},
        {"method": "sparsegpt", "sparsity": 0.5},
    ],
    ids=lambda settings: settings["method"] + settings.get("alloc", ""),
)
def test_a_checkpoint_is_pruned_as_it_streams_by(tmp_path, text, settings):
    wanted = job(tmp_path, calib=str(text), **WINDOWS, **settings)
    made = prepare_here(wanted)
    assert made.pretrained == str(TINY)
    pruned, stream = streamed(made)
    stream.check()
    expected = in_place(wanted)
    assert {name for name in pruned if not torch.equal(pruned[name], expected[name])} == set()
    zeros = sum(item["zeros"] for item in made.report["linears"])
    assert sum(stream.zeros.values()) >= zeros > 0
    if "scope" not in settings:
        assert sum(stream.zeros.values()) == zeros


def test_a_matrix_that_never_comes_by_is_an_error(tmp_path):
    made = prepare_here(job(tmp_path, method="magnitude", sparsity=0.2))
    stream = PrunedStream.open(Path(made.artifact))
    weights = load_file(TINY / "model.safetensors")
    list(stream(item for item in weights.items() if "layers.3.mlp.up_proj" not in item[0]))
    with pytest.raises(PruningError, match=r"1 of 35 matrices .* model\.layers\.3\.mlp\.up_proj among them"):
        stream.check()


def test_dropped_blocks_leave_a_checkpoint(tmp_path, text):
    wanted = job(tmp_path, method="shortgpt", num_blocks=2, calib=str(text), **WINDOWS)
    made = prepare_here(wanted)
    assert made.artifact is None
    assert made.is_intact()
    model = AutoModelForCausalLM.from_pretrained(made.pretrained)
    expected = in_place(wanted)
    assert model.config.num_hidden_layers == 3
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert AutoTokenizer.from_pretrained(made.pretrained).chat_template
    state = Path(made.pretrained, "model.safetensors").stat()
    assert prepare_here(wanted).pretrained == made.pretrained
    assert Path(made.pretrained, "model.safetensors").stat().st_mtime_ns == state.st_mtime_ns
    Path(made.pretrained, "model.safetensors").write_bytes(b"")
    assert not made.is_intact()
    assert prepare_here(wanted).is_intact()


def test_names_of_another_kind_leave_a_checkpoint(tmp_path):
    """A checkpoint of the decoder alone: its tensors lack the prefix that they have in the language model."""
    source = tmp_path / "decoder"
    shutil.copytree(TINY, source, ignore=shutil.ignore_patterns("*.py", "__pycache__", "*.npy", "*.md"))
    weights = load_file(TINY / "model.safetensors")
    save_file({name.removeprefix("model."): value for name, value in weights.items()}, source / "model.safetensors")
    wanted = job(tmp_path, source, method="magnitude", sparsity=0.3)
    made = prepare_here(wanted)
    assert made.artifact is None
    assert made.pretrained != str(source)
    written = load_file(Path(made.pretrained, "model.safetensors"))
    expected = in_place(wanted)
    assert all(torch.equal(value, expected[f"model.{name}"]) for name, value in written.items())


def test_a_dense_model_is_left_alone(tmp_path):
    made = prepare_here(job(tmp_path))
    assert (made.pretrained, made.folder, made.artifact) == (str(TINY), None, None)
    assert made.is_intact()
    assert made.report["zero_weights"] == 0
    assert made.report["prunable_weights"] > 0


def test_a_cache_that_keeps_nothing_is_an_error(tmp_path):
    (tmp_path / "artifacts").write_text("a file")
    with pytest.raises(DataError, match="was not kept, and an engine reads from there"):
        prepare_here(job(tmp_path, method="magnitude", sparsity=0.2))


def test_a_job_keeps_every_setting():
    config = PruneConfig(method="wanda", sparsity=0.2, exclude="o_proj")
    options = LoadOptions(dtype="float32", subfolder="inner", local_files_only=True)
    wanted = Job.of("m", config, artifacts="a", thinking="auto", options=options)
    assert Job.from_dict(json.loads(json.dumps(wanted.as_dict()))) == wanted


class TestKnown:
    def test_the_second_time_no_process_is_started(self, tmp_path, text, monkeypatch, caplog):
        wanted = job(tmp_path, method="wanda", sparsity=0.2, calib=str(text), **WINDOWS)
        made = prepare(wanted)
        assert prepare_here(wanted).folder == made.folder
        started = []
        monkeypatch.setattr(prepare_module, "_run_process", lambda job: started.append(job) or made)
        assert prepare(wanted) == made
        assert prepare(Job.from_dict(wanted.as_dict())) == made
        assert not started
        with caplog.at_level("INFO"):
            prepare(wanted)
        assert f"read from {made.folder}: nothing is calibrated" in caplog.text

        os.utime(text, ns=(0, 0))
        prepare(wanted)
        prepare(replace(wanted, options=LoadOptions(dtype="bfloat16")))
        prepare(replace(wanted, recipe=resolve(replace(wanted.recipe.config, sparsity=0.3))))
        assert len(started) == 3
        tensors = Path(made.folder, "tensors.safetensors")
        tensors.write_bytes(tensors.read_bytes()[:-1] + b"x")
        prepare(wanted)
        assert len(started) == 4

    def test_another_state_of_the_checkpoint_is_looked_at_again(self, tmp_path, monkeypatch):
        source = tmp_path / "model"
        shutil.copytree(TINY, source)
        wanted = job(tmp_path, source, method="magnitude", sparsity=0.2)
        made = prepare_here(wanted)
        started = []
        monkeypatch.setattr(prepare_module, "_run_process", lambda job: started.append(job) or made)
        prepare(wanted)
        prepare(wanted)
        assert len(started) == 1
        os.utime(source / "model.safetensors", ns=(0, 0))
        prepare(wanted)
        assert len(started) == 2
        # As rsync and tar leave a file: changed, with its old size and its old time of change.
        content = (source / "config.json").read_bytes()
        before = (source / "config.json").stat()
        (source / "config.json").write_bytes(content.replace(b"1e-06", b"1e-05"))
        os.utime(source / "config.json", ns=(before.st_atime_ns, before.st_mtime_ns))
        prepare(wanted)
        assert len(started) == 3

    @pytest.mark.parametrize("seconds", [-1e9, 1e9])
    def test_a_clock_that_jumps_changes_nothing(self, tmp_path, monkeypatch, seconds):
        source = tmp_path / "model"
        shutil.copytree(TINY, source)
        then = time.time() + seconds
        for path in source.iterdir():
            os.utime(path, (then, then))
        wanted = job(tmp_path, source, method="magnitude", sparsity=0.2)
        made = prepare_here(wanted)
        started = []
        monkeypatch.setattr(prepare_module, "_run_process", lambda job: started.append(job) or made)
        prepare(wanted)
        for path in (tmp_path / "artifacts").rglob("*"):
            os.utime(path, (then, then))
        assert prepare(wanted) == made
        assert len(started) == 1

    def test_what_the_model_writes_itself_is_always_asked(self, tmp_path, monkeypatch):
        made = prepare_here(job(tmp_path))
        started = []
        monkeypatch.setattr(prepare_module, "_run_process", lambda job: started.append(job) or made)
        wanted = job(tmp_path, method="wanda", sparsity=0.2, calib="traces")
        prepare(wanted)
        prepare(wanted)
        assert len(started) == 2


class TestMistakes:
    def test_an_error_of_the_process_is_raised_here(self, tmp_path, capfd):
        with pytest.raises(MissingDataError, match=r"pretrained=.* has no config.json"):
            prepare(job(tmp_path, tmp_path, method="magnitude", sparsity=0.2))
        assert "Traceback" not in capfd.readouterr().err

    def test_a_process_that_was_killed_is_named(self, tmp_path, monkeypatch):
        killed = tmp_path / "python"
        killed.write_text("#!/bin/sh\nkill -9 $$\n")
        killed.chmod(0o755)
        monkeypatch.setattr(prepare_module.sys, "executable", str(killed))
        with pytest.raises(PruningError, match="was killed by signal 9: most likely memory ran out"):
            prepare(job(tmp_path, method="magnitude", sparsity=0.2))

    def test_what_it_broke_off_with_stands_above(self, tmp_path, monkeypatch):
        monkeypatch.setattr(prepare_module.sys, "executable", shutil.which("false"))
        with pytest.raises(PruningError, match="ended with 1; its own lines stand above"):
            prepare(job(tmp_path, method="magnitude", sparsity=0.2))


def test_the_sums_are_those_of_coreutils(tmp_path, text):
    made = prepare_here(job(tmp_path, method="shortgpt", num_blocks=1, calib=str(text), **WINDOWS))
    check = ["sha256sum", "--strict", "--check", "SHA256SUMS"]
    assert subprocess.run(check, cwd=made.pretrained, capture_output=True, check=False).returncode == 0


def test_a_job_keeps_every_option(tmp_path):
    options = LoadOptions(dtype="bfloat16", revision="dev", subfolder="inner", local_files_only=True, dequantise=True)
    wanted = replace(job(tmp_path, method="magnitude", sparsity=0.2), options=options)
    assert Job.from_dict(json.loads(json.dumps(wanted.as_dict()))).options == options
