"""Measure how time grows with blocks, width, samples, tokens and cells; draws growth.png next to this file.

    python benchmarks/growth.py [--rounds 3] [--output benchmarks/growth.png]

Wanda prunes random Qwen3 models in float32, one dimension being doubled at a time; the leaderboard's page is built from
a growing number of cells, 500 answers each, in a process of its own. Each point is measured once in every round.
Plotted are medians, with the exponent of a power law fitted to the four largest sizes. About two minutes on two cores.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from leaderboard import write_all
from matplotlib.figure import Figure
from timing import seconds
from transformers import Qwen3Config, Qwen3ForCausalLM

from lm_eval_pruned import PruneConfig, prune_model

HERE = Path(__file__).resolve().parent
BASE = {"blocks": 4, "width": 256, "samples": 8, "tokens": 128}
DIMENSIONS = {
    "blocks": (2, 4, 8, 16, 32),
    "width": (128, 256, 512, 1024, 2048),
    "samples": (4, 8, 16, 32, 64),
    "tokens": (64, 128, 256, 512, 1024),
}
CELLS = (25, 50, 100, 200, 400)
ANSWERS = 500
VOCABULARY = 1000
FITTED = 4

Times = Mapping[int, list[float]]


def pruning(blocks: int, width: int, samples: int, tokens: int) -> float:
    """Return the seconds that Wanda takes for a model of these dimensions."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=blocks,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 128,
        head_dim=64,
    )
    model = Qwen3ForCausalLM(config).eval()
    windows = torch.randint(0, VOCABULARY, (samples, tokens), generator=torch.Generator().manual_seed(0))
    return seconds(lambda: prune_model(model, PruneConfig(method="wanda", sparsity=0.2), windows))


def page(folder: Path) -> float:
    """Return the seconds that building a page from runs takes."""
    command = [
        sys.executable,
        "-m",
        "lm_eval_pruned",
        "leaderboard",
        str(folder),
        "--output",
        str(folder / "page.html"),
    ]
    return seconds(lambda: subprocess.run(command, check=True, capture_output=True))


def measure(rounds: int, cells: Path) -> dict[str, Times]:
    """Return the seconds of each round, by dimension and size."""
    works: dict[str, dict[int, Callable[[], float]]] = {
        dimension: {size: partial(pruning, **{**BASE, dimension: size}) for size in sizes}
        for dimension, sizes in DIMENSIONS.items()
    }
    for count in CELLS:
        write_all(cells / str(count), count, ANSWERS)
    works["cells"] = {count: partial(page, cells / str(count)) for count in CELLS}
    pruning(**BASE)
    times: dict[str, dict[int, list[float]]] = {
        dimension: {size: [] for size in sizes} for dimension, sizes in works.items()
    }
    for _ in range(rounds):
        for dimension, sizes in works.items():
            for size, work in sizes.items():
                times[dimension][size].append(work())
    return times


def exponent(times: Times) -> float:
    """Return the exponent of the power law seconds ~ size**exponent."""
    sizes = sorted(times)[-FITTED:]
    return float(np.polyfit(np.log(sizes), np.log([median(times[size]) for size in sizes]), 1)[0])


def draw(times: Mapping[str, Times], path: Path) -> None:
    figure = Figure(figsize=(11, 2.6), layout="constrained", dpi=110)
    for axes, (dimension, measured) in zip(figure.subplots(1, len(times)), times.items(), strict=True):
        sizes = sorted(measured)
        axes.loglog(sizes, [median(measured[size]) for size in sizes], marker="o", markersize=3, color="#1f77b4")
        axes.set_title(f"{dimension}: power {exponent(measured):.2f}", fontsize=9)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.tick_params(labelsize=7)
        axes.set_ylabel("seconds" if dimension == "blocks" else "", fontsize=8)
        axes.grid(alpha=0.3)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=HERE / "growth.png")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as temporary:
        times = measure(args.rounds, Path(temporary))
    for dimension, measured in times.items():
        points = ", ".join(f"{size}: {median(measured[size]):.2f} s" for size in sorted(measured))
        print(f"{dimension:<8} power {exponent(measured):.2f}   {points}")
    draw(times, args.output)


if __name__ == "__main__":
    main()
