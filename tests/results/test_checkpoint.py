"""Runs of a checkpoint that `prune` wrote, by what does not know it: the harness's hf, Inspect and lighteval."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from lm_eval_pruned import cli
from lm_eval_pruned.results.records.reading import read_run
from lm_eval_pruned.results.records.record import Record
from tests.results.written_runs import write_run

FILES = Path(__file__).parent / "other_tools"
TASK = {"t_tts_16": [1] * 20}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pruned") / "checkpoint"
    flags = ("--method", "magnitude", "--sparsity", "0.5", "--artifacts", "off")
    assert cli.main(["prune", "--pretrained", "tiny-reasoner", *flags, "--output", str(folder)]) == 0
    return folder


@pytest.fixture
def checkpoint(tmp_path, written) -> Path:
    """A copy that is older than every run in these tests."""
    copy = Path(shutil.copytree(written, tmp_path / "checkpoint"))
    os.utime(copy / "pruning_report.json", (1e9, 1e9))
    return copy


def by_harness(folder: Path, checkpoint: Path) -> Record:
    return read_run(write_run(folder, TASK, model=str(checkpoint), backend="hf"))


def by_lighteval(folder: Path, checkpoint: Path) -> Record:
    content = json.loads((FILES / "lighteval_dense.json").read_text())
    content["config_general"]["model_name"] = str(checkpoint)
    path = folder / "results_2026-11-29T19-52-42.707109.json"
    path.write_text(json.dumps(content))
    return read_run(path)


def by_inspect(folder: Path, checkpoint: Path) -> Record:
    inspect_log = pytest.importorskip("inspect_ai.log")
    log = inspect_log.read_eval_log(str(FILES / "inspect_dense.eval"))
    log.eval.model, log.eval.model_args = "hf/local", {"model_path": str(checkpoint)}
    inspect_log.write_eval_log(log, str(folder / "log.eval"))
    return read_run(folder / "log.eval")


TOOLS = pytest.mark.parametrize("tool", [by_harness, by_lighteval, by_inspect])


@TOOLS
def test_the_note_tells_how_it_was_pruned(tmp_path, checkpoint, tool):
    found = tool(tmp_path, checkpoint)
    report = json.loads((checkpoint / "pruning_report.json").read_text())
    assert (found.configuration.model, found.configuration.label) == ("tiny-reasoner", "magnitude uniform 0.5")
    assert (found.fingerprint, found.sparsity) == (report["fingerprint"], report["achieved_sparsity"])
    assert len(found.blocks) == len(report["blocks"])
    assert dict(found.configuration.evidence)["weights"] == report["dense_sha256"][:16]
    assert ("calib_seed", "0") in found.seeds
    assert found.problems == ()


@TOOLS
def test_without_a_note_nobody_knows(tmp_path, checkpoint, tool):
    (checkpoint / "pruning_report.json").unlink()
    found = tool(tmp_path, checkpoint)
    assert (found.configuration.model, found.configuration.label) == (str(checkpoint), "unknown")
    assert (found.sparsity, found.fingerprint, found.problems) == (None, "", ())


@TOOLS
def test_a_note_for_other_weights_is_not_believed(tmp_path, checkpoint, tool):
    with (checkpoint / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    found = tool(tmp_path, checkpoint)
    assert (found.configuration.label, found.sparsity) == ("unknown", None)
    assert "does not describe the weights beside it" in found.problems[0]


@TOOLS
def test_a_note_that_is_newer_than_the_run_is_not_believed(tmp_path, checkpoint, tool):
    os.utime(checkpoint / "pruning_report.json", (4e9, 4e9))
    found = tool(tmp_path, checkpoint)
    assert found.configuration.label == "unknown"
    assert "newer than the run" in found.problems[0]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"config": 1, "weight_files": {}}'])
def test_a_malformed_note_is_not_believed(tmp_path, checkpoint, content):
    (checkpoint / "pruning_report.json").write_text(content)
    os.utime(checkpoint / "pruning_report.json", (1e9, 1e9))
    assert by_harness(tmp_path, checkpoint).configuration.label == "unknown"


def test_an_adapter_makes_another_model_of_it(tmp_path, checkpoint):
    path = write_run(tmp_path, TASK, model=f"{checkpoint},peft=adapter", backend="hf")
    assert read_run(path).configuration.label == "unknown"


def test_a_service_has_no_folders(tmp_path):
    content = json.loads((FILES / "lighteval_dense.json").read_text())
    content["config_general"]["model_name"] = "openrouter/some/model"
    content["config_general"]["model_config"]["base_url"] = "http://localhost"
    (tmp_path / "results_1.json").write_text(json.dumps(content))
    assert read_run(tmp_path / "results_1.json").configuration.label == "dense"
