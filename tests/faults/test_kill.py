"""The harness's command, killed at every stage: the same command then ends with the same masks and the same answers."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import pytest

from lm_eval_pruned.commands.sweep import harness
from lm_eval_pruned.reasoning.response_store import FILE
from tests.models.evaluation import stored

pytestmark = pytest.mark.slow

DEADLINE = 300
PROCESSES = get_context("forkserver")
PROCESSES.set_forkserver_preload(["lm_eval_pruned.sweeps.imports", __name__])
# Solved weights are kept whole: an artifact that takes a moment to write.
SETTINGS = "method=sparsegpt,sparsity=0.3,calib_samples=24,calib_seqlen=128"
TASKS = ("tiny_tts_16", "tiny_tts_32")


class Folders(NamedTuple):
    """What a command keeps."""

    artifacts: Path
    responses: Path

    @property
    def fingerprint(self) -> Path:
        """The artifact, wherever it is on its way to."""
        return next(iter(self.artifacts.glob("*.lock"))).with_suffix("")


def command(arguments: list[str], log: Path) -> None:
    """The harness's own command line, in a process that has its imports behind it."""
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    harness(arguments)


def start(kept: Folders, output: Path) -> BaseProcess:
    model_args = f"pretrained=tiny-reasoner,{SETTINGS},artifacts={kept.artifacts},responses={kept.responses}"
    arguments = [
        *("--model", "pruned-hf", "--model_args", model_args, "--tasks", ",".join(TASKS), "--limit", "6"),
        *("--batch_size", "2", "--log_samples", "--output_path", str(output)),
    ]
    process = PROCESSES.Process(target=command, args=(arguments, output.with_suffix(".log")))
    process.start()
    return process


def finish(kept: Folders, output: Path) -> tuple[bytes, list[list[str]]]:
    """Return the sums of the artifact without its report, which holds seconds, and the texts of all samples."""
    process = start(kept, output)
    process.join(DEADLINE)
    assert process.exitcode == 0, output.with_suffix(".log").read_text()
    sums = (kept.fingerprint / "SHA256SUMS").read_bytes().splitlines()
    files = [next(output.rglob(f"samples_{task}_*.jsonl")) for task in TASKS]
    texts = [[json.dumps(json.loads(line)["resps"]) for line in file.read_text().splitlines()] for file in files]
    return next(line for line in sums if b"tensors" in line), texts


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[str, tuple[bytes, list[list[str]]]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    kept = Folders(folder / "artifacts", folder / "responses")
    outcome = finish(kept, folder / "output")
    return kept.fingerprint.name, outcome


# What stands on the disk when the kill comes; each takes what is kept and the fingerprint.
STAGES: dict[str, Callable[[Folders, str], bool]] = {
    "before anything": lambda kept, _: kept.responses.exists(),
    "calibration": lambda kept, name: (kept.artifacts / f"{name}.lock").exists(),
    "writing": lambda kept, name: (kept.artifacts / f"{name}.tmp").exists(),
    "behind the rename": lambda kept, name: (kept.artifacts / name).exists(),
    "answering": lambda kept, _: stored(kept.responses / FILE) > 0,
}


@pytest.mark.parametrize("stage", STAGES)
def test_the_same_command_goes_on(stage, tmp_path, undisturbed):
    name, wanted = undisturbed
    kept = Folders(tmp_path / "artifacts", tmp_path / "responses")
    end = time.monotonic() + DEADLINE
    process = start(kept, tmp_path / "killed")
    while not STAGES[stage](kept, name):
        assert process.is_alive(), (tmp_path / "killed.log").read_text()
        assert time.monotonic() < end
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not list((tmp_path / "killed").rglob("results_*.json"))
    if stage in ("before anything", "calibration"):
        assert not (kept.artifacts / name).exists()
    assert finish(kept, tmp_path / "again") == wanted
    assert sorted(path.name for path in kept.artifacts.iterdir()) == [name, f"{name}.lock"]
