"""Mask files: written, applied by both backends without calibration, and refused for other weights."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lm_eval_pruned import cli
from lm_eval_pruned.config import PruneConfig, RunConfig
from lm_eval_pruned.errors import ArgumentError, DataError, MissingDataError, PruningError
from lm_eval_pruned.models.prune_checkpoint import prune_pretrained
from lm_eval_pruned.models.vllm.prepare_process import Job, prepare_here
from lm_eval_pruned.paths import assets_folder
from lm_eval_pruned.pruning.artifacts.apply import PrunedStream
from lm_eval_pruned.pruning.checkpoint.mask_file import read_mask_file
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.recipe import resolve
from tests.conftest import ROOT

TINY = assets_folder() / "tiny_reasoner"
WANDA = {"method": "wanda", "sparsity": 0.4, "calib_samples": 4, "calib_seqlen": 32}


def write(output: Path, **settings: object) -> int:
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return cli.main(["prune", "--pretrained", str(TINY), "--masks-only", "--output", str(output), *flags])


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """The weights that Wanda leaves, and its report."""
    folder = tmp_path_factory.mktemp("pruned")
    run = RunConfig(artifacts="off")
    report = prune_pretrained(str(TINY), resolve(PruneConfig(**WANDA)), run, LoadOptions(), output=folder)
    return load_file(folder / "model.safetensors"), report


@pytest.fixture(scope="module")
def masks(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("masks") / "masks.safetensors"
    assert write(path, artifacts="off", **WANDA) == 0
    return path


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_file_has_one_bit_a_weight(masks, pruned):
    _, report = pruned
    assert [path.name for path in masks.parent.glob("*.safetensors*")] == ["masks.safetensors"]
    (masks.parent / "ordinary").touch()
    assert masks.stat().st_mode == (masks.parent / "ordinary").stat().st_mode
    assert sum(mask.numel() for mask in load_file(masks).values()) == report.prunable_weights / 8
    found = read_mask_file(masks)
    assert (found.dense_sha256, found.model, found.dtype) == (report.dense_sha256, str(TINY), "float32")


@pytest.mark.parametrize("given", ["file", "folder"])
def test_the_dense_checkpoint_is_pruned_by_them(tmp_path, masks, pruned, given):
    expected, report = pruned
    recipe = resolve(PruneConfig(masks=str(masks if given == "file" else masks.parent)))
    assert not recipe.needs_calibration
    run = RunConfig(artifacts=str(tmp_path / "artifacts"))
    found = prune_pretrained(str(TINY), recipe, run, LoadOptions(), output=tmp_path)
    assert same(load_file(tmp_path / "model.safetensors"), expected)
    assert (found.zero_weights, found.linears) == (report.zero_weights, report.linears)
    # They are not taken for masks that were made here.
    assert found.fingerprint != report.fingerprint
    assert {**found.config, "masks": None} == {**report.config, "masks": None}
    assert found.config["masks"] == read_mask_file(masks).sha256[:16]


def test_an_engine_of_vllm_gets_the_same_weights(tmp_path, masks, pruned):
    job = Job.of(
        str(TINY), PruneConfig(masks=str(masks)), artifacts=str(tmp_path), thinking="auto", options=LoadOptions()
    )
    assert Job.from_dict(json.loads(json.dumps(job.as_dict()))) == job
    made = prepare_here(job)
    stream = PrunedStream.open(Path(made.artifact))
    assert same(dict(stream(iter(load_file(TINY / "model.safetensors").items()))), pruned[0])
    stream.check()


def test_other_weights_are_refused(tmp_path, masks):
    model = AutoModelForCausalLM.from_pretrained(TINY)
    model.get_output_embeddings().weight.data[0, 0] += 1
    with pytest.raises(PruningError, match=r"is for the weights .* of .*tiny_reasoner in float32; these are"):
        prune_model(model, PruneConfig(masks=str(masks)))
    with pytest.raises(PruningError, match="with dtype=float32"):
        prune_model(AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.bfloat16), PruneConfig(masks=str(masks)))


def test_what_contradicts_the_file_is_an_error(masks):
    assert resolve(PruneConfig(masks=str(masks), method="wanda")).config.sparsity == 0.4
    with pytest.raises(ArgumentError, match=r"sparsity=0.5 contradicts masks=.*, which has sparsity=0.4"):
        resolve(PruneConfig(masks=str(masks), method="wanda", sparsity=0.5))


def test_a_pattern_comes_back(tmp_path):
    path = tmp_path / "n_m.safetensors"
    assert write(path, method="magnitude", pattern="2:4", scope="attn", artifacts=tmp_path / "artifacts") == 0
    run = RunConfig(artifacts="off")
    report = prune_pretrained(str(TINY), resolve(PruneConfig(masks=str(path))), run, LoadOptions())
    assert (report.config["pattern"], report.config["scope"], report.achieved_sparsity) == ("2:4", "attn", 0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "method=none, which removes nothing"),
        ({"method": "sparsegpt", "sparsity": 0.5}, "which changes the weights that stay"),
        ({"method": "shortgpt", "num_blocks": 1}, "which takes weights out of the model"),
        ({"method": "width", "sparsity": 0.2}, "which takes weights out of the model"),
    ],
)
def test_methods_without_masks(tmp_path, capsys, settings, message):
    assert write(tmp_path / "m.safetensors", **settings) == 2
    assert message in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def test_a_file_has_to_be_called_one(tmp_path, capsys):
    assert write(tmp_path / "folder", **WANDA) == 2
    assert "ends in .safetensors" in capsys.readouterr().err


def test_a_checkpoint_with_other_names(tmp_path, capsys):
    shutil.copytree(TINY, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "model" / "pytorch_model.bin")
    arguments = ["prune", "--pretrained", str(tmp_path / "model"), "--masks-only", "--method", "magnitude"]
    output = tmp_path / "m.safetensors"
    assert cli.main([*arguments, "--sparsity", "0.5", "--artifacts", "off", "--output", str(output)]) == 2
    assert "has no safetensors" in capsys.readouterr().err
    assert not output.exists()


def damaged(masks: Path, path: Path, **changed: str) -> Path:
    with safe_open(masks, framework="pt") as file:
        metadata = {**file.metadata(), **changed}
    save_file(load_file(masks), path, metadata=metadata)
    return path


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"version": "2"}, "not a mask file of version 1"), ({"shapes": "{}"}, "do not fit their shapes"),
        ({"report": "[]"}, "or damaged"), ({"shapes": "["}, "or damaged"),
        ({"report": '{"config": {"method": "squared"}}'}, "settings that are not known here: unknown method"),
    ],
)  # fmt: skip
def test_damaged_files(tmp_path, masks, changed, message):
    with pytest.raises(DataError, match=message):
        resolve(PruneConfig(masks=str(damaged(masks, tmp_path / "m.safetensors", **changed))))


def test_no_such_file(tmp_path):
    with pytest.raises(MissingDataError, match="neither a file nor a folder or hub id"):
        resolve(PruneConfig(masks=str(tmp_path / "none.safetensors")))
    (tmp_path / "text.safetensors").write_text("x")
    with pytest.raises(DataError, match="is not a mask file, or damaged"):
        resolve(PruneConfig(masks=str(tmp_path / "text.safetensors")))


class Hub(BaseHTTPRequestHandler):
    """One repository with a mask file, as the client of the hub asks for it."""

    masks: Path

    def do_HEAD(self) -> None:
        content = self.masks.read_bytes()
        found = self.path == "/someone/tiny-masks/resolve/main/masks.safetensors"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(content) if found else 0))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if found and self.command == "GET":
            self.wfile.write(content)

    def do_GET(self) -> None:
        self.do_HEAD()

    def log_message(self, *_: object) -> None:
        pass


def test_masks_from_the_hub(tmp_path, masks, pruned):
    """HF_ENDPOINT names a server of our own; the client reads it once, at its import."""
    hub = type("MaskHub", (Hub,), {"masks": masks})
    with ThreadingHTTPServer(("127.0.0.1", 0), hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HUB_OFFLINE": "0",
            # lm-eval 0.4.10 turns it on, and nothing installs the package that it takes.
            "HF_HUB_ENABLE_HF_TRANSFER": "0",
            "HF_HOME": str(tmp_path / "cache"),
        }
        flags = {"pretrained": TINY, "masks": "someone/tiny-masks", "artifacts": "off", "output": tmp_path / "out"}
        command = [sys.executable, "-m", "lm_eval_pruned", "prune"]
        ran = subprocess.run(
            [*command, *(word for name, value in flags.items() for word in (f"--{name}", str(value)))],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        server.shutdown()
    assert ran.returncode == 0, ran.stderr
    assert same(load_file(tmp_path / "out" / "model.safetensors"), pruned[0])


def test_a_mask_of_a_matrix_that_is_not_there(tmp_path, masks):
    tensors = load_file(masks)
    with safe_open(masks, framework="pt") as file:
        metadata = file.metadata()
    name = next(iter(tensors))
    tensors["elsewhere.weight"] = tensors.pop(name)
    shapes = json.loads(metadata["shapes"])
    shapes["elsewhere.weight"] = shapes.pop(name)
    save_file(tensors, tmp_path / "m.safetensors", metadata={**metadata, "shapes": json.dumps(shapes)})
    with pytest.raises(PruningError, match="has a mask of elsewhere"):
        prune_model(AutoModelForCausalLM.from_pretrained(TINY), PruneConfig(masks=str(tmp_path / "m.safetensors")))


def test_the_loader_of_the_docs(tmp_path, masks, pruned):
    """It needs numpy and safetensors alone, and refuses other weights."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "masks.md").read_text(), flags=re.DOTALL)
    assert len(code.splitlines()) <= 32
    assert {*re.findall(r"^(?:import|from) (\w+)", code, flags=re.MULTILINE)} == {
        "hashlib",
        "json",
        "numpy",
        "safetensors",
    }
    names: dict = {}
    exec(compile(code, "docs/masks.md", "exec"), names)
    dense = TINY / "model.safetensors"
    weights = names["masked"](str(masks), [str(dense)])
    for name, expected in pruned[0].items():
        assert weights[name].tobytes() == expected.numpy().tobytes(), name
    other = {name: weight.clone() for name, weight in load_file(dense).items()}
    other["model.norm.weight"][0] += 1
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="other weights"):
        names["masked"](str(masks), [str(tmp_path / "other.safetensors")])
