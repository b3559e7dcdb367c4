"""Time and memory of a leaderboard page of 1,800 runs with ten million answers, compared with only parsing the files.

    python benchmarks/leaderboard.py [--rows 10000000] [--runs 1800]

The runs are those of the paper: two models, 15 prunings, four benchmarks, five budgets, three seeds, each a results
file with samples in the harness's format. `lm-eval-pruned leaderboard` makes its page in its own process; its memory is
that of the whole process tree, sampled twenty times a second. Another process reads the same files, parses every line
as JSON and stores nothing. The exit code is 1 beyond the limits.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from tests.results.written_runs import answers, difficulties, row, write_run  # noqa: E402

LIMIT_SECONDS = 120
LIMIT_BYTES = 2 * 2**30
POLL_SECONDS = 0.05

MODELS = ("s1.1-7B", "Qwen3-8B")
PRUNINGS = (
    *(("none", "uniform", 0.0), ("shortgpt", "uniform", 0.03), ("shortgpt", "uniform", 0.07)),
    *product(("magnitude", "wanda"), ("uniform", "owl", "layerif"), (0.1, 0.2)),
)
BENCHMARKS = ("aime24", "math500", "amc23", "gpqa_diamond")
BUDGETS = (512, 1024, 2048, 4096, 8192)
SEEDS = (7, 11, 42)

READER = """
import json, sys
from pathlib import Path
for path in Path(sys.argv[1]).rglob("*.json*"):
    with path.open("rb") as file:
        for line in file:
            json.loads(line)
"""


class Run(NamedTuple):
    """Wall-clock and CPU seconds, and peak memory in bytes."""

    wall: float
    cpu: float
    peak: int


def write_all(folder: Path, runs: int, questions: int) -> None:
    """Write the first `runs` of the paper's runs with `questions` questions each."""
    generator = np.random.default_rng(0)
    chances = {name: difficulties(questions, generator) for name in BENCHMARKS}
    texts = {
        name: [json.dumps(row(f"{name}_tts_{BUDGETS[0]}", number, 0.0)) for number in range(questions)]
        for name in BENCHMARKS
    }
    everything = product(MODELS, BENCHMARKS, BUDGETS, SEEDS, PRUNINGS)
    for number, (model, benchmark, budget, seed, (method, alloc, sparsity)) in enumerate(everything):
        if number == runs:
            return
        task = f"{benchmark}_tts_{budget}"
        chance = chances[benchmark] * (np.log2(budget) / 13) * (1 - 3 * sparsity * (method == "shortgpt"))
        given = answers(chance, generator)
        place = folder / f"{number:04}"
        path = write_run(
            place,
            {task: given},
            seed=seed,
            method=method,
            alloc=alloc,
            sparsity=sparsity,
            model=model,
            has_samples=False,
        )
        with (place / f"samples_{task}_{path.stem.rpartition('_')[2]}.jsonl").open("w") as file:
            file.writelines(
                text.replace('"acc": 0.0', f'"acc": {value}') + "\n"
                for text, value in zip(texts[benchmark], given.tolist(), strict=True)
            )


def measure(command: list[str]) -> Run:
    """Run a command, sampling the memory of its process tree until it ends."""
    begin, before, peak = time.perf_counter(), child_cpu_seconds(), 0
    process = psutil.Popen(command)
    while process.poll() is None:
        peak = max(peak, sum(memory(one) for one in (process, *children(process))))
        time.sleep(POLL_SECONDS)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Run(time.perf_counter() - begin, child_cpu_seconds() - before, peak)


def child_cpu_seconds() -> float:
    """Return the CPU seconds of all children that have ended."""
    times = psutil.Process().cpu_times()
    return times.children_user + times.children_system


def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=1_800)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, page = Path(temporary) / "runs", Path(temporary) / "page.html"
        write_all(folder, args.runs, -(-args.rows // args.runs))
        size = sum(path.stat().st_size for path in folder.rglob("*.json*"))
        reading = measure([sys.executable, "-c", READER, str(folder)])
        command = ["-m", "lm_eval_pruned", "leaderboard", str(folder), "--output", str(page)]
        ours = measure([sys.executable, *command])
        print(f"{args.runs} runs, {args.rows:,} rows, {size / 1e9:.1f} GB; page {page.stat().st_size / 1e6:.1f} MB")
    print("                     wall     cpu      peak")
    for name, run in (("leaderboard", ours), ("reading as JSON", reading)):
        print(f"  {name:<16} {run.wall:6.1f} s {run.cpu:6.1f} s {run.peak / 2**20:6.0f} MiB")
    print(f"  ratio            {ours.wall / reading.wall:6.2f}   {ours.cpu / reading.cpu:6.2f}")
    return int(ours.wall > LIMIT_SECONDS or ours.peak > LIMIT_BYTES)


if __name__ == "__main__":
    sys.exit(main())
