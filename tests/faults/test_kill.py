"""The stock command, killed at every stage: the same command then ends with the same masks and the same answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from lm_eval_pruned.reasoning.responses import FILE
from tests.models.asking import stored

pytestmark = pytest.mark.slow

DEADLINE = 300
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


def start(kept: Folders, output: Path) -> subprocess.Popen[str]:
    arguments = f"pretrained=tiny-reasoner,{SETTINGS},artifacts={kept.artifacts},responses={kept.responses}"
    command = [
        *(str(Path(sys.executable).parent / "lm_eval"), "--model", "pruned-hf", "--model_args", arguments),
        *("--tasks", ",".join(TASKS), "--limit", "6", "--batch_size", "2", "--log_samples"),
        *("--output_path", str(output)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def finish(kept: Folders, output: Path) -> tuple[bytes, list[list[str]]]:
    """Return the sums of the artifact without its report, which holds seconds, and the texts of all samples."""
    with start(kept, output) as command:
        _, errors = command.communicate(timeout=DEADLINE)
    assert command.returncode == 0, errors
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
    with start(kept, tmp_path / "killed") as command:
        while not STAGES[stage](kept, name):
            assert command.poll() is None, command.stderr.read()
            assert time.monotonic() < end
        command.kill()
    assert command.returncode == -signal.SIGKILL
    assert not list((tmp_path / "killed").rglob("results_*.json"))
    if stage in ("before anything", "calibration"):
        assert not (kept.artifacts / name).exists()
    assert finish(kept, tmp_path / "again") == wanted
    assert sorted(path.name for path in kept.artifacts.iterdir()) == [name, f"{name}.lock"]
