"""Disks that are full or read-only: a finished pruning is not lost, and what cannot be stored is reported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lm_eval_pruned.cli import main
from lm_eval_pruned.commands.prune import PARTIAL
from lm_eval_pruned.errors import DataError
from lm_eval_pruned.models.hf import PrunedHFLM
from lm_eval_pruned.reasoning.response_store import FILE

PRUNED = {"method": "magnitude", "sparsity": 0.2}


@pytest.fixture(params=["full", "read-only"])
def disk(request, tmp_path) -> Iterator[Path]:
    """A real file system of 64 KiB that is full, or that cannot be written; mounting one takes root."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("no file system can be mounted here")
    try:
        if request.param == "full":
            with (place / "ballast").open("wb") as file:
                fill(file.fileno())
        else:
            subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def fill(descriptor: int) -> None:
    while True:
        try:
            os.write(descriptor, bytes(4096))
        except OSError:
            return


def masks(model: PrunedHFLM) -> list[bytes]:
    return [(parameter == 0).numpy().tobytes() for _, parameter in sorted(model.model.named_parameters())]


def test_a_pruning_that_cannot_be_stored_is_not_lost(disk, caplog):
    model = PrunedHFLM("tiny-reasoner", artifacts=str(disk / "artifacts"), **PRUNED)
    (line,) = [record.message for record in caplog.records if "cannot be kept" in record.message]
    assert str(disk) in line
    assert "going on without" in line
    assert masks(model) == masks(PrunedHFLM("tiny-reasoner", artifacts="off", **PRUNED))


def test_an_unusable_response_store_is_found_before_the_weights(disk):
    with pytest.raises(DataError, match=rf"the response store {disk}/responses/{FILE} cannot be used .*make room"):
        PrunedHFLM("tiny-reasoner", responses=str(disk / "responses"))


@pytest.mark.slow
@pytest.mark.parametrize(("kept", "code"), [("artifacts", 0), ("responses", 2)])
def test_the_stock_command(disk, tmp_path, kept, code):
    settings = ",".join(f"{name}={value}" for name, value in PRUNED.items())
    command = [
        *(str(Path(sys.executable).parent / "lm_eval"), "--model", "pruned-hf", "--tasks", "tiny_tts_16"),
        *("--model_args", f"pretrained=tiny-reasoner,{settings},{kept}={disk / kept}", "--limit", "2"),
        *("--output_path", str(tmp_path / "results")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert sum(str(disk) in line and "Initializing" not in line for line in done.stderr.splitlines()) == 1
    assert bool(list(tmp_path.rglob("results_*.json"))) == (code == 0)


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(disk, tmp_path, capsys):
    output = disk / "pruned"
    flags = ["--pretrained", "tiny-reasoner", "--method", "magnitude", "--sparsity", "0.2"]
    arguments = ["prune", *flags, "--artifacts", str(tmp_path / "artifacts"), "--output", str(output)]
    assert main(arguments) == 2
    assert f"--output {output} cannot be written" in capsys.readouterr().err
    assert not output.exists()


def test_a_checkpoint_is_complete_or_not_there(tmp_path):
    """What a killed run has left does not matter; a folder that contains something else is not touched."""
    output = tmp_path / "pruned"
    (output / PARTIAL).mkdir(parents=True)
    (output / PARTIAL / "model-00001.safetensors").write_text("torn")
    arguments = ["prune", "--pretrained", "tiny-reasoner", *("--method", "magnitude", "--sparsity", "0.2")]
    assert main([*arguments, "--artifacts", "off", "--output", str(output)]) == 0
    assert {"config.json", "model.safetensors", "pruning_report.json"} <= {path.name for path in output.iterdir()}
    assert not (output / PARTIAL).exists()
    assert main([*arguments, "--artifacts", "off", "--output", str(output)]) == 2
