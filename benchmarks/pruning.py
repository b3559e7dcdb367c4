"""What pruning costs: time against plain passes over the same windows, loads against dense loads, and memory.

    python benchmarks/pruning.py [--rounds 3] [--windows 32] [--seqlen 512]
    python benchmarks/pruning.py --only layerif --processor    # one part of it, by processor time

SmolLM2-135M in float32. Everything is measured in turns within a round, so that a busy machine slows all alike; figures
are medians over the rounds of ratios within one. The peer is the published loop: for every block, all samples forwards
with a hook on each Linear, a stable sort of every row, all samples forwards again.
"""

from __future__ import annotations

import argparse
import copy
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from smollm2 import temporary_smollm2
from timing import in_turns, processor_seconds, ratio, seconds
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lm_eval_pruned import PruneConfig, prune_model
from lm_eval_pruned.models.hf import PrunedHFLM
from lm_eval_pruned.pruning.artifacts.report import peak_memory

SPARSITY = 0.5
PLAIN, BACKWARD = "plain pass", "forward + backward, a quarter"
Clock = Callable[[Callable[[], object]], float]


@torch.no_grad()
def forward(model: PreTrainedModel, windows: Tensor) -> None:
    for window in windows:
        model(input_ids=window[None], use_cache=False)


def forward_backward(model: PreTrainedModel, windows: Tensor) -> None:
    for window in windows:
        model(input_ids=window[None], labels=window[None], use_cache=False).loss.backward()
        model.zero_grad()


@torch.no_grad()
def published_loop(model: PreTrainedModel, windows: Tensor) -> None:
    """Wanda as published: a sum for every Linear, rows sorted, each sample through each block twice."""
    caught: list[tuple[Tensor, dict[str, object]]] = []

    class Caught(Exception):  # noqa: N818
        """Ends a forward pass at the first block."""

    def catch(module: nn.Module, arguments: tuple[Tensor, ...], keywords: dict[str, object]) -> None:
        caught.append((arguments[0], keywords))
        raise Caught

    handle = model.model.layers[0].register_forward_pre_hook(catch, with_kwargs=True)
    for window in windows:
        with suppress(Caught):
            model(input_ids=window[None], use_cache=False)
    handle.remove()
    states, keywords = [state for state, _ in caught], caught[0][1]
    for block in model.model.layers:
        linears = [module for module in block.modules() if isinstance(module, nn.Linear)]
        sums = {linear: torch.zeros(linear.in_features) for linear in linears}

        def add(module: nn.Module, arguments: tuple[Tensor, ...], sums: dict[nn.Module, Tensor] = sums) -> None:
            sums[module] += arguments[0].float().square().sum(dim=(0, 1))

        handles = [linear.register_forward_pre_hook(add) for linear in linears]
        for state in states:
            block(state, **keywords)
        for handle in handles:
            handle.remove()
        for linear, total in sums.items():
            order = (linear.weight.abs() * total.sqrt()).sort(dim=-1, stable=True).indices
            linear.weight.scatter_(1, order[:, : int(linear.in_features * SPARSITY)], 0)
        states = [block(state, **keywords) for state in states]


def time_pruning(folder: Path, rounds: int, windows: Tensor, only: str, clock: Clock) -> None:
    dense = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    few = windows[: len(windows) // 4]
    works: dict[str, Callable[[PreTrainedModel], object]] = {
        PLAIN: lambda model: forward(model, windows),
        "published loop": lambda model: published_loop(model, windows),
        "wanda": lambda model: prune(model, windows, method="wanda"),
        "wanda, dense flow": lambda model: prune(model, windows, method="wanda", propagate="dense"),
        "sparsegpt": lambda model: prune(model, windows, method="sparsegpt"),
        "magnitude": lambda model: prune(model, None, method="magnitude"),
        BACKWARD: lambda model: forward_backward(model, few),
        "layerif on magnitude, a quarter": lambda model: prune(model, few, method="magnitude", alloc="layerif"),
    }
    forward(dense, windows[:2])
    peers = {name: BACKWARD if "quarter" in name else PLAIN for name in works}
    chosen = {name for name in works if only in name}
    chosen |= {peers[name] for name in chosen}
    times = in_turns(
        {name: partial(on_a_copy, dense, work, clock) for name, work in works.items() if name in chosen}, rounds
    )
    print(f"\n{len(windows)} windows of {windows.shape[1]} tokens, {rounds} rounds")
    for name, measured in times.items():
        peer = times[peers[name]]
        of = "forward + backward" if "quarter" in name else "one plain pass"
        print(f"  {name:<34}{median(measured):8.1f} s {ratio(measured, peer):7.2f} x {of}")


def prune(model: PreTrainedModel, windows: Tensor | None, **settings: str) -> None:
    prune_model(model, PruneConfig(sparsity=SPARSITY, **settings), windows)


def on_a_copy(dense: PreTrainedModel, work: Callable[[PreTrainedModel], object], clock: Clock) -> float:
    """Return the seconds of `work` on a copy, whose making is not counted."""
    model = copy.deepcopy(dense)
    return clock(lambda: work(model))


def time_loading(folder: Path, windows: Path, artifacts: Path, rounds: int) -> None:
    settings = {"method": "wanda", "sparsity": SPARSITY, "calib": str(windows), "artifacts": str(artifacts)}
    PrunedHFLM(str(folder), **settings)
    works: dict[str, Callable[[], object]] = {
        "the harness's hf": lambda: HFLM(str(folder), device="cpu"),
        "pruned-hf, dense": lambda: PrunedHFLM(str(folder)),
        "pruned-hf, from an artifact": lambda: PrunedHFLM(str(folder), **settings),
    }
    times = in_turns({name: partial(seconds, work) for name, work in works.items()}, 3 * rounds)
    print(f"\nloading, {3 * rounds} rounds")
    for name, measured in times.items():
        peer = ratio(measured, times["pruned-hf, dense"])
        print(f"  {name:<34}{median(measured):8.2f} s {peer:7.2f} x pruned-hf, dense")


def weigh_once(work: str, folder: str, windows: str) -> None:
    """Print the peak resident memory of this process, in bytes, after one unit of work."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.from_numpy(np.load(windows))
    forward(model, ids[:1, :8])
    if work == "published loop":
        published_loop(model, ids)
    elif work != "none":
        prune(model, ids, method=work)
    print(peak_memory(model.device))


def weigh(folder: Path, windows: Path) -> None:
    """Print the peak resident memory that pruning adds to a loaded model, and what must be held."""

    def peak(work: str) -> float:
        run = [sys.executable, __file__, "--weigh", work, str(folder), str(windows)]
        return int(subprocess.run(run, check=True, capture_output=True, text=True).stdout) / 2**20

    config = AutoConfig.from_pretrained(folder)
    samples, seqlen = np.load(windows).shape
    hidden = samples * seqlen * config.hidden_size * 4 / 2**20
    loaded = peak("none")
    print(
        f"\npeak memory: {loaded:.0f} MiB with the model loaded; hidden states of the calibration set {hidden:.0f} MiB"
    )
    for work in ("published loop", "wanda", "sparsegpt", "magnitude"):
        print(f"  {work:<34}{peak(work) - loaded:+8.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--seqlen", type=int, default=512)
    parser.add_argument("--only", default="", help="time what has this in its name, beside its peer, and no loading")
    parser.add_argument("--processor", action="store_true", help="measure processor time")
    parser.add_argument("--weigh", nargs=3, metavar=("WORK", "MODEL", "WINDOWS"), help="one run")
    args = parser.parse_args()
    if args.weigh:
        weigh_once(*args.weigh)
        return
    logging.disable(logging.WARNING)
    with temporary_smollm2() as folder, tempfile.TemporaryDirectory() as temporary:
        windows = torch.randint(0, 49000, (args.windows, args.seqlen), generator=torch.Generator().manual_seed(0))
        saved = Path(temporary) / "windows.npy"
        np.save(saved, windows.numpy())
        time_pruning(folder, args.rounds, windows, args.only, processor_seconds if args.processor else seconds)
        if args.only:
            return
        time_loading(folder, saved, Path(temporary) / "artifacts", args.rounds)
        weigh(folder, saved)


if __name__ == "__main__":
    main()
