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
from lm_eval_pruned.pruning.artifacts.sink import BlockSink, visit_blocks
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.calibration.calibrator import calibrate, visit_outputs
from lm_eval_pruned.pruning.calibration.counted import select_counted
from lm_eval_pruned.pruning.calibration.observed import Observed
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
) -> dict[str, int]:
    """Prune block after block; with `propagate=pruned`, later blocks are calibrated on the outputs of pruned ones.

    Returns the zeros of every Linear, by name.

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
    step = linear_step(recipe.method, recipe.config.random_seed)
    linears = {block.index: [one for one in block.linears if one.name in targets] for block in decoder.blocks}
    observed = Observed(linears=linears, collect=step.collect, dense=recipe.config.propagate == "dense")
    steps = len(decoder.blocks) * (len(windows) if windows is not None else 1)
    unit = "window" if windows is not None else "block"
    with progress_bar(steps, desc=recipe.config.method, unit=unit) as progress:
        with stopwatch.phase("calibrate"):
            calibrator = None if windows is None else calibrate(decoder, windows, observed, progress.update)

        def process(block: Block) -> None:
            progress.set_postfix_str(f"block {block.index + 1}/{len(decoder.blocks)}")
            with stopwatch.phase("calibrate"):
                statistics = calibrator.measure(block) if calibrator else {}
            with stopwatch.phase("prune"):
                for linear in observed.of(block):
                    rule = recipe.rule(targets[linear.name])
                    sink.store(linear.name, _prune(step, linear, statistics.get(linear.name), rule))
                trim_heap()
            with stopwatch.phase("calibrate"):
                if calibrator:
                    calibrator.advance(block)
            if calibrator is None:
                progress.update()

        return visit_blocks(decoder, sink, process)


@torch.no_grad()
def block_influences(decoder: Decoder, windows: Windows, method: DropMethod) -> list[float]:
    """Return the influence of every block but the last, which is never dropped: a mean over its calls in all windows.

    Raises:
        PruningError: a hidden state is not finite, or a block is never called or writes another shape than it reads.
    """
    blocks = decoder.blocks[:-1]
    means: list[list[Tensor]] = [[] for _ in decoder.blocks]
    with progress_bar(len(blocks) * len(windows), desc="block influence", unit="window") as progress:

        def on_call(block: Block, before: Tensor, after: Tensor, counted: Tensor | None) -> None:
            if before.shape != after.shape:
                raise PruningError(
                    f"{block.name} reads {list(before.shape)} and writes {list(after.shape)}: its influence is "
                    "undefined, use another method"
                )
            # The block may be the first on another device than the block before it.
            pair = (select_counted(one, counted, block.name) for one in (before, _finite(after, block.name)))
            influence = method.influence(*(one.to(after.device) for one in pair))
            means[block.index].append(influence.mean())
            progress.update()

        visit_outputs(decoder, blocks, windows, on_call)
    for block in blocks:
        if not means[block.index]:
            raise PruningError(f"{block.name} is never called: its influence is undefined, use another method")
    return [float(torch.stack(means[block.index]).mean()) for block in blocks]


@torch.no_grad()
def run_influences(decoder: Decoder, windows: Windows, method: DropMethod, count: int) -> list[float]:
    """Return the influence of each run of `count` consecutive blocks, by its first block.

    It is measured at the last token of each window that counts, between what the first block reads and the last block
    writes, and averaged over windows.

    Raises:
        PruningError: a hidden state is not finite, or there is not exactly one for each token and call of a block.
    """
    read: list[list[Tensor]] = [[] for _ in decoder.blocks]
    written: list[list[Tensor]] = [[] for _ in decoder.blocks]
    with progress_bar(len(decoder.blocks) * len(windows), desc="angles of blocks", unit="window") as progress:

        def on_call(block: Block, before: Tensor, after: Tensor, counted: Tensor | None) -> None:
            if before.shape != after.shape or before.ndim != 3:
                raise PruningError(
                    f"{block.name} reads {list(before.shape)} and writes {list(after.shape)}, and not one hidden state "
                    "a token: the influence of several blocks is undefined, use another method"
                )
            # Copies on the CPU, since a slice would keep the hidden states of all tokens.
            last = [select_counted(one, counted, block.name)[:, -1:] for one in (before, after)]
            read[block.index].append(last[0].cpu().clone())
            written[block.index].append(_finite(last[1], block.name).cpu().clone())
            progress.update()

        visit_outputs(decoder, decoder.blocks, windows, on_call)
    for block in decoder.blocks:
        if len(read[block.index]) != len(windows):
            raise PruningError(
                f"{block.name} is called {len(read[block.index])} times for {len(windows)} windows: the influence of "
                "several blocks is undefined, use another method"
            )
    return [
        float(torch.stack([method.influence(*pair).mean() for pair in zip(before, after, strict=True)]).mean())
        for before, after in zip(read, written[count - 1 :], strict=False)
    ]


def _prune(step: LinearStep[Result], linear: Linear, statistic: Result | None, rule: MaskRule) -> Tensor:
    try:
        return step.prune(linear, statistic, rule)
    except PruningError as error:
        raise PruningError(f"{linear.name}: {error}") from None


def _finite(hidden: Tensor, name: str) -> Tensor:
    if not hidden.isfinite().all():
        raise PruningError(f"what {name} writes is not finite: check the checkpoint and its dtype")
    return hidden
