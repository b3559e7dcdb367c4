"""Compare pruning with llm-compressor: seconds and memory for the same model, windows and sparsity, and the masks.

    make bench-llmcompressor

SmolLM2-135M in float32, in an environment that holds both. Each run is a process, alternating between the two; timing
starts with the loaded model and ends with the pruned one. Both prune block by block and propagate the outputs of pruned
blocks: in llm-compressor that is the sequential pipeline, its own default.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from smollm2 import temporary_smollm2
from transformers import AutoModelForCausalLM, PreTrainedModel

from lm_eval_pruned import PruneConfig, prune_model
from lm_eval_pruned.pruning.artifacts.report import peak_memory

SPARSITY = 0.5
METHODS = ("wanda", "sparsegpt")


def ours(model: PreTrainedModel, windows: torch.Tensor, method: str) -> None:
    prune_model(model, PruneConfig(method=method, sparsity=SPARSITY), windows)


def theirs(model: PreTrainedModel, windows: torch.Tensor, method: str) -> None:
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.pruning.sparsegpt import SparseGPTModifier
    from llmcompressor.modifiers.pruning.wanda import WandaPruningModifier

    kind = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}[method]
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in windows.tolist()]
    oneshot(
        model=model,
        dataset=Dataset.from_list(rows),
        recipe=kind(sparsity=SPARSITY, targets=["Linear"], ignore=["lm_head"]),
        max_seq_length=windows.shape[1],
        num_calibration_samples=len(windows),
        shuffle_calibration_samples=False,
        pipeline="sequential",
    )


def once(who: str, method: str, folder: Path, windows: Path, masks: Path) -> None:
    """Prune, print seconds and peak memory as JSON, and save the masks."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.from_numpy(np.load(windows))
    with torch.no_grad():
        model(ids[:1, :8], use_cache=False)
    before, started = peak_memory(model.device), time.perf_counter()
    {"ours": ours, "theirs": theirs}[who](model, ids, method)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "megabytes": (peak_memory(model.device) - before) / 2**20}))
    linears = [(name, weight) for name, weight in model.named_parameters() if "proj" in name]
    np.savez(masks, **{name: np.packbits((weight == 0).numpy()) for name, weight in linears})


def run(who: str, method: str, folder: Path, windows: Path, masks: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--once", who, method, str(folder), str(windows), str(masks)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def differing(one: Path, other: Path) -> float:
    """Return the share of weights that are zero in only one of the two models."""
    first, second = np.load(one), np.load(other)
    bits = sum(int(np.unpackbits(first[name] ^ second[name]).sum()) for name in first.files)
    return bits / sum(8 * first[name].size for name in first.files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--seqlen", type=int, default=512)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--once", nargs=5, metavar=("WHO", "METHOD", "MODEL", "WINDOWS", "MASKS"), help="one run")
    args = parser.parse_args()
    if args.once:
        who, method, *paths = args.once
        once(who, method, *map(Path, paths))
        return
    with temporary_smollm2() as folder, tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        windows = torch.randint(0, 49000, (args.windows, args.seqlen), generator=torch.Generator().manual_seed(0))
        np.save(work / "windows.npy", windows.numpy())
        print(f"{args.windows} windows of {args.seqlen} tokens, {args.rounds} rounds, medians")
        for method in args.methods:
            rounds = [
                {who: run(who, method, folder, work / "windows.npy", work / f"{who}.npz") for who in ("ours", "theirs")}
                for _ in range(args.rounds)
            ]
            times = median(one["theirs"]["seconds"] / one["ours"]["seconds"] for one in rounds)
            grown = {who: median(one[who]["megabytes"] for one in rounds) for who in ("ours", "theirs")}
            print(
                f"  {method:<10} llm-compressor takes {times:.2f} times as long (ours "
                f"{median(one['ours']['seconds'] for one in rounds):.1f} s) and adds {grown['theirs']:.0f} MiB to the "
                f"loaded model (ours {grown['ours']:.0f}); {differing(work / 'ours.npz', work / 'theirs.npz'):.2%} of "
                "the weights are zero in one of the two only"
            )


if __name__ == "__main__":
    main()
