"""The shipped sweep `calibration` on the bundled model: generic text against the model's own chains of thought.

    python benchmarks/calibration.py

runs its grid by `lm-eval-pruned sweep` with tiny-reasoner in place of DeepSeek-R1-Distill-Qwen-7B, 60 % in place of 50,
and English prose (Python's own language reference) in place of C4, and prints the accuracy of each cell on
`tiny_tts_256` with a paired exact McNemar test against the generic text. Two minutes on two cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import yaml

from lm_eval_pruned.paths import configs_folder
from lm_eval_pruned.results.statistics.paired import paired_test

TASK, SPARSITY = "tiny_tts_256", 0.6
DEFAULTS = {
    "models": "tiny-reasoner",
    "tasks": TASK,
    "batch_size": 100,
    "model_args": {"calib_samples": 32, "calib_seqlen": 256},
}


def rewritten(folder: Path) -> Path:
    """Write the shipped grid for the bundled model, with a file of prose in place of C4."""
    text = folder / "prose.jsonl"
    text.write_text("".join(json.dumps({"text": topic}) + "\n" for _, topic in sorted(topics.items())))
    sweep = yaml.safe_load((configs_folder() / "sweeps" / "calibration.yaml").read_text())
    for grid in sweep["grids"]:
        if "sparsities" in grid:
            grid["sparsities"] = SPARSITY
            if grid["model_args"]["calib"] == "c4":
                grid["model_args"]["calib"] = str(text)
    path = folder / "calibration.yaml"
    path.write_text(yaml.safe_dump({"defaults": DEFAULTS, "grids": sweep["grids"]}))
    return path


def outcomes(folder: Path) -> dict[str, np.ndarray]:
    """Return which questions each cell answers right, in one order, by its calibration."""
    found = {}
    for results in sorted(folder.rglob("results_*.json")):
        given = json.loads(results.read_text())["config"]["model_args"]
        rows = [json.loads(line) for line in next(results.parent.glob(f"samples_{TASK}_*.jsonl")).open()]
        correct = {row["doc_hash"]: float(row["acc"]) for row in rows}
        calib = "text" if given.get("calib", "").endswith(".jsonl") else given.get("calib", "dense")
        found[" ".join([calib, *([given["calib_tokens"]] if "calib_tokens" in given else [])])] = np.array(
            [correct[key] for key in sorted(correct)]
        )
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "lm_eval_pruned", "sweep", str(rewritten(folder)), "--engine", "local"]
        subprocess.run([*command, "--output", str(folder / "out")], check=True, stdout=subprocess.DEVNULL)
        found = outcomes(folder / "out")
    for name, correct in found.items():
        gains = correct - found["text"]
        p = paired_test(gains, "two-sided").p
        print(f"{name:<18}{correct.mean():.3f}  {(gains > 0).sum()} won, {(gains < 0).sum()} lost, p = {p:.2g}")


if __name__ == "__main__":
    main()
