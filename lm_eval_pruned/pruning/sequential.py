"""The walk over the decoder blocks in which each is measured, pruned and passed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.process_memory import give_back
from lm_eval_pruned.pruning.artifacts.report import Stopwatch
from lm_eval_pruned.pruning.calibration.activations import Activations, Windows
from lm_eval_pruned.pruning.calibration.statistics import InputStatistics, Statistic
from lm_eval_pruned.pruning.masks.packing import clear, pack
from lm_eval_pruned.pruning.masks.rule import MaskRule
from lm_eval_pruned.pruning.methods import ScoreMethod, SolveMethod
from lm_eval_pruned.pruning.model.decoder import Linear
from lm_eval_pruned.pruning.model.tour import Tour
from lm_eval_pruned.pruning.recipe import Recipe

Result = TypeVar("Result")

# Prunes one Linear in place, and returns what an artifact keeps of it: a packed mask, or the new weight itself.
Prune = Callable[[Linear, Result | None, MaskRule], Tensor]


def walk(
    model: nn.Module,
    tour: Tour,
    targets: Mapping[str, float],
    recipe: Recipe,
    windows: Windows | None,
    stopwatch: Stopwatch,
    *,
    collect: Callable[[], Statistic[Result]],
    prune: Prune[Result],
    kept: MutableMapping[str, Tensor],
) -> None:
    """Prune block after block; with `propagate=pruned` later blocks are measured behind the pruned earlier ones.

    Without windows nothing is measured. `kept` gets what `prune` returned for every Linear, by name.
    """
    decoder = tour.decoder
    steps = len(decoder.blocks) * (len(windows) if windows is not None else 1)
    unit = "window" if windows is not None else "block"
    with tqdm(total=steps, desc=recipe.config.method, unit=unit, disable=None) as progress:
        with stopwatch.phase("calibrate"):
            flow = None if windows is None else Activations.capture(model, decoder, windows, progress.update)
        for block in tour:
            progress.set_postfix_str(f"block {block.index + 1}/{len(decoder.blocks)}")
            linears = [linear for linear in block.linears if linear.name in targets]
            is_last = block is decoder.blocks[-1]
            with stopwatch.phase("calibrate"):
                dense_flow = recipe.config.propagate == "dense" and not is_last
                seen = flow.measure(block, linears, collect, advance=dense_flow) if flow and linears else {}
            with stopwatch.phase("prune"):
                for linear in linears:
                    kept[linear.name] = _named(prune, linear, seen.get(linear.name), recipe.rule(targets[linear.name]))
                give_back()
            with stopwatch.phase("calibrate"):
                if flow and not is_last and not (dense_flow and linears):
                    flow.advance(block)
            if flow is None:
                progress.update()


def _named(prune: Prune[Result], linear: Linear, seen: Result | None, rule: MaskRule) -> Tensor:
    try:
        return prune(linear, seen, rule)
    except PruningError as error:
        raise PruningError(f"{linear.name}: {error}") from None


def by_score(method: ScoreMethod) -> Prune[InputStatistics]:
    """Return what sets the lowest-scored weights of a Linear to zero and gives its packed mask.

    Weights of an expert that no calibration token reached are scored as if all its inputs were of one size.
    """

    def prune(linear: Linear, seen: InputStatistics | None, rule: MaskRule) -> Tensor:
        weight = linear.weight.detach()
        statistics = seen or InputStatistics(norm=weight.new_ones(weight.shape[1], dtype=torch.float32))
        if method.by_rows:
            keep = rule.keep_by_rows(lambda some: method.score(weight[some], statistics), weight)
        else:
            keep = rule.keep(method.score(weight, statistics))
        clear(weight, keep)
        return pack(keep)

    return prune


def by_solving(method: SolveMethod) -> Prune[Tensor]:
    """Return what replaces a Linear's weight by the solution for it and gives that weight.

    For an expert that no calibration token reached, the inputs count as independent and of one size.
    """

    @torch.no_grad()
    def prune(linear: Linear, seen: Tensor | None, rule: MaskRule) -> Tensor:
        weight = linear.weight
        gram = torch.eye(weight.shape[1], device=weight.device) if seen is None else seen
        weight.copy_(method.solve(weight, gram, rule))
        return weight.detach()

    return prune
