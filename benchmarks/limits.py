"""Where each method breaks: the picture of the sweep `limits`, and the same for SmolLM2-135M by perplexity and KL.

    python benchmarks/limits.py draw FOLDER PICTURE      # after: lm-eval-pruned sweep limits --output FOLDER
    python benchmarks/limits.py smollm2 [--windows 4] [--seqlen 256] [--picture PICTURE]

SmolLM2: each method on held-out English prose, perplexity relative to the
dense model's, and KL(dense || pruned) in nats a token.
"""

from __future__ import annotations

import argparse
import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, get_args

import torch
from matplotlib.figure import Figure
from prose import perplexity, prose
from smollm2 import temporary_smollm2
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_eval_pruned import PruneConfig, prune_model
from lm_eval_pruned.config import BlockMethod
from lm_eval_pruned.divergence.head import divide
from lm_eval_pruned.divergence.measure import dense_traces, mean_kl
from lm_eval_pruned.divergence.traces import TokenTrace
from lm_eval_pruned.results.leaderboard.entries import build_entries
from lm_eval_pruned.results.records.reading import read_records

DROPS = get_args(BlockMethod)
SCORES = ("magnitude", "wanda", "ria", "sparsegpt", "random", "width")
COUNTS, SPARSITIES = (1, 2, 4), (0.2, 0.5)
# One line style for each place of a method: colours alone do not tell nine lines apart.
STYLES = ("o-", "s--", "^-.", "D:", "v-", "P-")


class Point(NamedTuple):
    """One pruned model: its method, how much of it is gone (blocks, or a share of the weights), and what that did."""

    method: str
    amount: float
    value: float


def draw(columns: Mapping[str, list[Point]], *, log: bool, path: Path) -> None:
    """Draw one row of two panels, blocks dropped and sparsity, for each measure."""
    figure = Figure(figsize=(10, 3.6 * len(columns)), layout="constrained")
    axes = figure.subplots(len(columns), 2, sharey="row", squeeze=False)
    for row, (name, points) in zip(axes, columns.items(), strict=True):
        for axis, methods, title in zip(row, (DROPS, SCORES), ("blocks dropped", "sparsity"), strict=True):
            for style, method in zip(STYLES, methods, strict=False):
                curve = sorted((point.amount, point.value) for point in points if point.method in (method, "dense"))
                axis.plot(*zip(*curve, strict=True), style, label=method, alpha=0.8, markersize=5)
            axis.set(xlabel=title, yscale="log" if log else "linear")
            axis.grid(alpha=0.3)
            axis.xaxis.get_major_locator().set_params(integer=title == "blocks dropped")
            axis.legend(fontsize="small")
        row[0].set_ylabel(name)
    figure.savefig(path, dpi=110)


def sweep_points(folder: Path) -> dict[str, list[Point]]:
    """Return the accuracy of each run of the sweep, by task."""
    columns: dict[str, list[Point]] = {}
    for entry in build_entries(read_records([folder / "cells"]).records):
        # A run that was stopped early has no mean to draw.
        if entry.key is not None and entry.line.acc is not None and not entry.line.task.startswith("parens"):
            words = entry.key.configuration.words
            amount = 0.0 if words.method == "dense" else float(words.amount.split()[0])
            columns.setdefault(f"accuracy, {entry.line.task}", []).append(Point(words.method, amount, entry.line.acc))
    return columns


def smollm2_points(windows: int, seqlen: int) -> dict[str, list[Point]]:
    """Prune SmolLM2-135M by each method, print a line for each, and return perplexities and divergences."""
    columns: dict[str, list[Point]] = {"perplexity / dense": [Point("dense", 0, 1.0)], "KL(dense || pruned), nats": []}
    with temporary_smollm2() as folder:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        dense = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        calibration = prose(tokenizer, samples=windows, seqlen=seqlen)
        held_out = prose(tokenizer, samples=windows, seqlen=seqlen, held_out=True)
        traces = [
            TokenTrace(question=str(index), ids=tuple(row), start=1, thinking=0)
            for index, row in enumerate(held_out.tolist())
        ]
        before = dense_traces(divide(dense, held_out[:1]), traces)
        base = perplexity(dense, held_out)
        print(f"perplexity of the dense model: {base:.2f}", flush=True)
        recipes = [
            *(PruneConfig(method=method, num_blocks=count) for method in DROPS for count in COUNTS),
            *(PruneConfig(method=method, sparsity=share) for method in SCORES for share in SPARSITIES),
        ]
        for recipe in recipes:
            pruned = copy.deepcopy(dense)
            prune_model(pruned, recipe, calibration)
            values = perplexity(pruned, held_out) / base, mean_kl(divide(pruned, held_out[:1]), before)
            amount = recipe.num_blocks or recipe.sparsity or 0
            for points, value in zip(columns.values(), values, strict=True):
                points.append(Point(recipe.method, amount, value))
            print(f"{recipe.method:<14}{amount:>6}{values[0]:>12.3f}{values[1]:>10.4f}", flush=True)
    return columns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    sweep = parts.add_parser("draw")
    sweep.add_argument("folder", type=Path)
    sweep.add_argument("picture", type=Path)
    smollm2 = parts.add_parser("smollm2")
    smollm2.add_argument("--windows", type=int, default=4)
    smollm2.add_argument("--seqlen", type=int, default=256)
    smollm2.add_argument("--picture", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    if args.part == "draw":
        draw(sweep_points(args.folder), log=False, path=args.picture)
        return
    columns = smollm2_points(args.windows, args.seqlen)
    if args.picture:
        draw(columns, log=True, path=args.picture)


if __name__ == "__main__":
    main()
