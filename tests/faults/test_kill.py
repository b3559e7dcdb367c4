"""The harness's command, killed at every stage: the same command then ends with the same masks and the same answers."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import pytest

from lm_eval_pruned.reasoning.response_store import FILE
from tests import forked
from tests.models.evaluation import stored

pytestmark = pytest.mark.slow

# Solved weights are stored whole, so the artifact takes a moment to write.
SETTINGS = "method=sparsegpt,sparsity=0.3,calib_samples=24,calib_seqlen=128"
TASKS = ("tiny_tts_16", "tiny_tts_32")


class Folders(NamedTuple):
    """The folders in which a command stores masks and responses."""

    artifacts: Path
    responses: Path

    @property
    def fingerprint(self) -> Path:
        """The artifact's folder, whether or not it has been written."""
        return next(iter(self.artifacts.glob("*.lock"))).with_suffix("")


def start(folders: Folders, output: Path) -> BaseProcess:
    model_args = f"pretrained=tiny-reasoner,{SETTINGS},artifacts={folders.artifacts},responses={folders.responses}"
    command = [
        *("lm_eval", "--model", "pruned-hf", "--model_args", model_args, "--tasks", ",".join(TASKS), "--limit", "6"),
        *("--batch_size", "2", "--log_samples", "--output_path", str(output)),
    ]
    return forked.start(command, output)


def finish(folders: Folders, output: Path) -> tuple[bytes, list[list[str]]]:
    """Return the sums of the artifact without its report, which holds seconds, and the texts of all samples."""
    process = start(folders, output)
    process.join(forked.DEADLINE)
    assert process.exitcode == 0, output.with_suffix(".err").read_text()
    sums = (folders.fingerprint / "SHA256SUMS").read_bytes().splitlines()
    files = [next(output.rglob(f"samples_{task}_*.jsonl")) for task in TASKS]
    texts = [[json.dumps(json.loads(line)["resps"]) for line in file.read_text().splitlines()] for file in files]
    return next(line for line in sums if b"tensors" in line), texts


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[str, tuple[bytes, list[list[str]]]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    folders = Folders(folder / "artifacts", folder / "responses")
    outcome = finish(folders, folder / "output")
    return folders.fingerprint.name, outcome


# When to kill: whether a stage is reached, by the folders and the fingerprint.
STAGES: dict[str, Callable[[Folders, str], bool]] = {
    "before anything": lambda folders, _: folders.responses.exists(),
    "calibration": lambda folders, name: (folders.artifacts / f"{name}.lock").exists(),
    "writing": lambda folders, name: (folders.artifacts / f"{name}.tmp").exists(),
    "after the rename": lambda folders, name: (folders.artifacts / name).exists(),
    "answering": lambda folders, _: stored(folders.responses / FILE) > 0,
}


@pytest.mark.parametrize("stage", STAGES)
def test_the_same_command_goes_on(stage, tmp_path, undisturbed):
    name, wanted = undisturbed
    folders = Folders(tmp_path / "artifacts", tmp_path / "responses")
    end = time.monotonic() + forked.DEADLINE
    process = start(folders, tmp_path / "killed")
    while not STAGES[stage](folders, name):
        assert process.is_alive(), (tmp_path / "killed.err").read_text()
        assert time.monotonic() < end
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not list((tmp_path / "killed").rglob("results_*.json"))
    if stage in ("before anything", "calibration"):
        assert not (folders.artifacts / name).exists()
    assert finish(folders, tmp_path / "again") == wanted
    assert sorted(path.name for path in folders.artifacts.iterdir()) == [name, f"{name}.lock"]
