"""Prune a checkpoint of 8 billion weights block by block: peak memory, and time relative to reading and writing it.

Weights are random, in the shapes of Qwen3-8B (bf16, 16 GB): the measured quantities do not depend on values. Reading
and writing are plain copies of the same bytes, in the same run, on the same disk, with a cold page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from accelerate import init_empty_weights
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from lm_eval_pruned.paths import assets_folder

SHARD_BYTES = 4_000_000_000
PIECE = 1 << 24
PROMPT = [[3, 5, 8, 13]]


SIZES = {
    "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960, "tie_word_embeddings": False,
}  # fmt: skip


def make_checkpoint(folder: Path, blocks: int, sizes: Mapping[str, object] = SIZES) -> None:
    """Write random weights, a shard at a time; in the shapes of Qwen3-8B where no others are given."""
    folder.mkdir(parents=True)
    config = Qwen3Config(num_hidden_layers=blocks, dtype="bfloat16", **sizes)
    config.architectures = ["Qwen3ForCausalLM"]
    config.save_pretrained(folder)
    for path in (assets_folder() / "tiny_reasoner").glob("*token*.json"):
        shutil.copy(path, folder)
    with init_empty_weights():
        shapes = {name: tensor.shape for name, tensor in Qwen3ForCausalLM(config).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    shards = [*_shards(shapes)]
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        weights = {name: torch.empty(shapes[name], dtype=torch.bfloat16) for name in names}
        for tensor in weights.values():
            tensor.fill_(1) if tensor.ndim == 1 else tensor.normal_(std=0.02, generator=generator)
        save_file(weights, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _shards(shapes: dict[str, torch.Size]) -> Iterator[list[str]]:
    names, size = [], 0
    for name, shape in shapes.items():
        if size + 2 * shape.numel() > SHARD_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += 2 * shape.numel()
    yield names


def evict(folder: Path) -> None:
    """Evict files from the page cache, so that they are read from the disk."""
    os.sync()
    for path in folder.rglob("*.safetensors"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def reading_time(source: Path) -> float:
    """Return the seconds that reading the shards from the disk takes."""
    evict(source)
    piece = bytearray(PIECE)
    started = time.perf_counter()
    for path in sorted(source.glob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while file.readinto(piece):
                pass
    return time.perf_counter() - started


def writing_time(source: Path, target: Path) -> float:
    """Return the seconds that writing and syncing as many bytes takes."""
    piece = os.urandom(PIECE)
    target.mkdir()
    started = time.perf_counter()
    for path in sorted(source.glob("*.safetensors")):
        with (target / path.name).open("wb", buffering=0) as file:
            for _ in range(-(-path.stat().st_size // PIECE)):
                file.write(piece)
            os.fsync(file.fileno())
    seconds = time.perf_counter() - started
    shutil.rmtree(target)
    return seconds


def prune(source: Path, output: Path, artifacts: Path, *arguments: str) -> tuple[float, dict[str, object]]:
    """Run the command; return its seconds, including the sync to disk, and its report."""
    evict(source)
    command = [sys.executable, "-m", "lm_eval_pruned", "prune", "--pretrained", str(source), "--output", str(output)]
    started = time.perf_counter()
    subprocess.run([*command, "--artifacts", str(artifacts), *arguments], check=True, stdout=subprocess.DEVNULL)
    os.sync()
    return time.perf_counter() - started, json.loads((output / "pruning_report.json").read_text())


def check(output: Path, report: dict[str, object]) -> None:
    """Load the output with transformers, count its zeros, and run a forward pass."""
    model = AutoModelForCausalLM.from_pretrained(output)
    with torch.no_grad():
        logits = model(torch.tensor(PROMPT)).logits
    assert logits.isfinite().all()
    zeros = sum(int((value == 0).sum()) for name, value in model.named_parameters() if "proj" in name)
    assert zeros == report["zero_weights"], (zeros, report["zero_weights"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the checkpoint is created, and stays [a temporary folder]")
    parser.add_argument("--blocks", type=int, default=36, help="decoder blocks of 386 MB; 36 make Qwen3-8B")
    parser.add_argument("--methods", nargs="+", default=["magnitude", "wanda"])
    args = parser.parse_args()
    with TemporaryDirectory(dir=args.folder and args.folder.parent) as temporary:
        work = Path(temporary)
        source = args.folder or work / "dense"
        if not source.exists():
            make_checkpoint(source, args.blocks)
        size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
        reading, writing = reading_time(source), writing_time(source, work / "copy")
        print(f"{size / 1e9:.1f} GB: read in {reading:.0f} s, written in {writing:.0f} s")
        windows = ["--calib_samples", "8", "--calib_seqlen", "128", "--calib", str(calibration(work))]
        for method in args.methods:
            given = windows if method == "wanda" else []
            seconds, report = prune(
                source, work / method, work / "artifacts", "--method", method, "--sparsity", "0.2", *given
            )
            check(work / method, report)
            peak = float(str(report["peak_memory_bytes"])) / 2**30
            print(
                f"{method:<10} {seconds:6.0f} s, {seconds / (reading + writing):.2f} x reading plus writing; "
                f"peak of resident memory {peak:.2f} GiB; loads, computes, sparsity {report['achieved_sparsity']:.4f}"
            )
            shutil.rmtree(work / method)


def calibration(work: Path) -> Path:
    """Write eight windows of text for the tokenizer of the bundled model."""
    path = work / "text.jsonl"
    path.write_text("".join(json.dumps({"text": f"a={seed};b=a+{seed};" * 100}) + "\n" for seed in range(8)))
    return path


if __name__ == "__main__":
    main()
