"""Several processes of one run, as `torchrun` and `accelerate launch` start them, over gloo."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_one_makes_the_masks_and_the_other_reads_them(tmp_path):
    settings = f"pretrained=tiny-reasoner,method=wanda,sparsity=0.5,calib_samples=16,artifacts={tmp_path / 'artifacts'}"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "lm_eval"]
    arguments = ["--model", "pruned-hf", "--model_args", settings, "--tasks", "tiny_tts_16", "--limit", "8"]
    run = subprocess.run(
        [*command, *arguments, "--batch_size", "8", "--device", "cpu", "--output_path", str(tmp_path / "results")],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert len(re.findall(r"wanda: \d+ of \d+ weights are zero", run.stderr)) == 2
    assert run.stderr.count("what was pruned before is read from") == 1
    assert len([path for path in (tmp_path / "artifacts").iterdir() if path.is_dir()]) == 1
    [results] = Path(tmp_path / "results").rglob("results_*.json")
    assert json.loads(results.read_text())["config"]["pruning"]["achieved_sparsity"] == 0.5
