"""Sequential pruning: for each decoder block, calibrate its Linears, prune them, and propagate the activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.process_memory import trim_heap
from lm_eval_pruned.progress import progress_bar
from lm_eval_pruned.pruning.artifacts.report import Stopwatch
from lm_eval_pruned.pruning.artifacts.sink import BlockSink, ZeroCounts, visit_blocks
from lm_eval_pruned.pruning.calibration.activations import Activations, Windows
from lm_eval_pruned.pruning.masks.rule import MaskRule
from lm_eval_pruned.pruning.methods import DropMethod
from lm_eval_pruned.pruning.methods.steps import LinearStep, linear_step
from lm_eval_pruned.pruning.model.decoder import Block, Decoder, Linear
from lm_eval_pruned.pruning.recipe import Recipe

Result = TypeVar("Result")


def prune_blocks(
    recipe: Recipe,
    decoder: Decoder,
    targets: Mapping[str, float],
    windows: Windows | None,
    sink: BlockSink,
    stopwatch: Stopwatch,
) -> ZeroCounts:
    """Prune block after block; with `propagate=pruned`, later blocks are calibrated on the outputs of pruned ones.

    Args:
        recipe: method, mask rules and `propagate`.
        decoder: the model, pruned in place.
        targets: sparsity of every Linear in scope, by name.
        windows: calibration token ids; None if the method needs none.
        sink: takes what an artifact stores, and the pruned blocks.
        stopwatch: times the phases `calibrate` and `prune`.

    Raises:
        PruningError: a Linear cannot be pruned, or its inputs are not finite.
    """
    assert recipe.method is not None
    step = linear_step(recipe.method)
    last = decoder.blocks[-1]
    steps = len(decoder.blocks) * (len(windows) if windows is not None else 1)
    unit = "window" if windows is not None else "block"
    with progress_bar(steps, desc=recipe.config.method, unit=unit) as progress:
        with stopwatch.phase("calibrate"):
            activations = None if windows is None else Activations.capture(decoder, windows, progress.update)

        def process(block: Block) -> None:
            progress.set_postfix_str(f"block {block.index + 1}/{len(decoder.blocks)}")
            linears = [linear for linear in block.linears if linear.name in targets]
            # Dense activations are propagated by the calibration pass itself, unless nothing is calibrated.
            propagate_dense = recipe.config.propagate == "dense" and block is not last and bool(linears)
            statistics = {}
            with stopwatch.phase("calibrate"):
                if activations and linears:
                    statistics = activations.measure(block, linears, step.collect, advance=propagate_dense)
            with stopwatch.phase("prune"):
                for linear in linears:
                    rule = recipe.rule(targets[linear.name])
                    sink.store(linear.name, _prune(step, linear, statistics.get(linear.name), rule))
                trim_heap()
            with stopwatch.phase("calibrate"):
                if activations and block is not last and not propagate_dense:
                    activations.advance(block)
            if activations is None:
                progress.update()

        return visit_blocks(decoder, sink, process)


@torch.no_grad()
def block_influences(decoder: Decoder, windows: Windows, method: DropMethod) -> list[float]:
    """Return the influence of every block but the last, which is never dropped: a mean over windows.

    Raises:
        PruningError: a hidden state is not finite.
    """
    activations = Activations.capture(decoder, windows)
    blocks = decoder.blocks[:-1]
    influences = []
    with progress_bar(len(blocks) * len(windows), desc="block influence", unit="window") as progress:
        for block in blocks:
            means = []
            with decoder.residency.onload(block.module):
                for before, after in activations.steps(block):
                    means.append(method.influence(before, _finite(after, block.name)).mean())
                    progress.update()
            influences.append(float(torch.stack(means).mean()))
    return influences


def _prune(step: LinearStep[Result], linear: Linear, statistic: Result | None, rule: MaskRule) -> Tensor:
    try:
        return step.prune(linear, statistic, rule)
    except PruningError as error:
        raise PruningError(f"{linear.name}: {error}") from None


def _finite(hidden: Tensor, name: str) -> Tensor:
    if not hidden.isfinite().all():
        raise PruningError(f"what {name} writes is not finite: check the checkpoint and its dtype")
    return hidden
