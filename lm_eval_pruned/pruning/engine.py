"""The engine: one walk over the decoder blocks in which each is measured, pruned and passed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn
from tqdm import tqdm

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, NotBuiltError, PruningError
from lm_eval_pruned.pruning.activations import Activations
from lm_eval_pruned.pruning.allocations import ALLOCATIONS, Allocation, listed
from lm_eval_pruned.pruning.blocks import Decoder, Linear, find_decoder
from lm_eval_pruned.pruning.dropping import block_influences, count_to_drop, drop_blocks
from lm_eval_pruned.pruning.fingerprint import fingerprint, weights_digest
from lm_eval_pruned.pruning.mask import keep_mask, keep_pattern
from lm_eval_pruned.pruning.methods import METHODS, DropMethod, Method, ScoreMethod
from lm_eval_pruned.pruning.report import PruneReport, Stopwatch, build_report
from lm_eval_pruned.pruning.signals import outlier_ratios
from lm_eval_pruned.pruning.stats import InputStatistics

logger = logging.getLogger(__name__)


class Recipe(NamedTuple):
    """A configuration with its names looked up; `method` is None for the dense baseline."""

    config: PruneConfig
    method: Method | None
    allocation: Allocation

    @property
    def needs_calibration(self) -> bool:
        """Whether calibration windows must be given: by the method, or by the signal of the allocation."""
        return self.method is not None and (self.method.needs_calibration or self.allocation.signal != "none")


def resolve(config: PruneConfig) -> Recipe:
    """Look up the names in `config`; call it before loading weights.

    Raises:
        NotBuiltError: a documented value that this version does not offer yet.
        MissingDataError, DataError: a list of sparsities that cannot be read.
    """
    if config.method != "none" and config.method not in METHODS:
        raise NotBuiltError(f"method={config.method} is not built in this version: use {', '.join(METHODS)} or none")
    if not config.is_listed and config.alloc not in ALLOCATIONS:
        raise NotBuiltError(f"alloc={config.alloc} is not built in this version: use {', '.join(ALLOCATIONS)}")
    if config.preset != "none":
        raise NotBuiltError(f"preset={config.preset} is not built in this version: leave it out")
    method = None if config.method == "none" else METHODS[config.method]
    return Recipe(config, method, listed(config.alloc) if config.is_listed else ALLOCATIONS[config.alloc])


def prune_model(
    model: nn.Module,
    config: PruneConfig,
    windows: Int[Tensor, "samples seqlen"] | None = None,
    *,
    stopwatch: Stopwatch | None = None,
) -> PruneReport:
    """Set weights of `model` to zero, in place, and return the report counted from the outcome.

    Args:
        model: a causal language model of transformers, loaded in any floating dtype.
        config: method, allocation, sparsity and everything else that decides which weights go.
        windows: calibration token ids [samples seqlen]; `pruning.calibration.load_windows` makes them.
        stopwatch: carries seconds already spent on loading into the report.

    Raises:
        ArgumentError: the method needs calibration windows and none were given.
        NotBuiltError: a documented value that this version does not offer yet.
        PruningError: nothing matches, a number is not finite, or the outcome is not what was asked for.
    """
    recipe = resolve(config)
    stopwatch = stopwatch or Stopwatch()
    if recipe.needs_calibration and windows is None:
        needs = f"method={config.method}, alloc={config.alloc}"
        raise ArgumentError(f"{needs} needs calibration windows: pass token ids [samples, seqlen]")
    if not recipe.needs_calibration:
        windows = None
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise PruningError(f"{type(model).__name__} has an encoder: only decoder-only language models are pruned")
    decoder = find_decoder(model)
    settings = config.as_dict()
    determining = {**settings, "listed": recipe.allocation.listed}
    digest = fingerprint(determining, weights=weights_digest(model), windows=windows)
    training = model.training
    model.eval()
    removed: frozenset[int] = frozenset()
    match recipe.method:
        case DropMethod():
            assert windows is not None
            removed = _drop(model, decoder, recipe.method, config, windows, stopwatch)
            targets = {
                linear.name: float(block.index in removed) for block in decoder.blocks for linear in block.linears
            }
        case method:
            with stopwatch.phase("allocate"):
                targets = allocate(recipe, model, decoder, windows)
            if method is not None:
                _walk(model, decoder, targets, method, config, windows, stopwatch)
    model.train(training)
    report = build_report(
        model,
        decoder,
        targets,
        removed=removed,
        config=settings,
        target_sparsity=config.target if config.sparsity is not None or config.group else _mean(targets, decoder),
        fingerprint=digest,
        seconds=stopwatch.seconds,
    )
    if isinstance(recipe.method, ScoreMethod):
        _check(report, {linear.name: linear for block in decoder.blocks for linear in block.linears})
    logger.info("%s: %d of %d weights are zero", config.method, report.zero_weights, report.prunable_weights)
    return report


def allocate(recipe: Recipe, model: nn.Module, decoder: Decoder, windows: Tensor | None) -> dict[str, float]:
    """Return the target sparsity of every Linear in scope, by name; a signal is measured before anything is pruned.

    Raises:
        PruningError: no Linear is in scope.
    """
    config, allocation = recipe.config, recipe.allocation
    scoped = [[linear for linear in block.linears if _in_scope(linear, config)] for block in decoder.blocks]
    sizes = torch.tensor([sum(linear.module.weight.numel() for linear in linears) for linears in scoped]).double()
    if not sizes.sum():
        raise PruningError(f"scope={config.scope} matches no Linear weight of this model: use scope=all")
    signal = torch.zeros_like(sizes)
    if allocation.signal == "outlier_ratio" and windows is not None:
        signal = outlier_ratios(model, decoder.blocks, scoped, windows, owl_m=config.owl_m)
    settings = {name: getattr(config, name) for name in allocation.settings}
    sparsities = allocation.allocate(signal, config.target, sizes, **settings)
    return {
        linear.name: sparsity
        for linears, sparsity in zip(scoped, sparsities.tolist(), strict=True)
        for linear in linears
    }


def _mean(targets: Mapping[str, float], decoder: Decoder) -> float:
    """Return the mean of the targets, weighted by the sizes of their Linears."""
    linears = [linear for block in decoder.blocks for linear in block.linears if linear.name in targets]
    sizes = [linear.module.weight.numel() for linear in linears]
    wanted = sum(size * targets[linear.name] for size, linear in zip(sizes, linears, strict=True))
    return wanted / sum(sizes)


def _in_scope(linear: Linear, config: PruneConfig) -> bool:
    return config.scope in ("all", linear.part)


def _drop(
    model: nn.Module,
    decoder: Decoder,
    method: DropMethod,
    config: PruneConfig,
    windows: Tensor,
    stopwatch: Stopwatch,
) -> frozenset[int]:
    """Drop the blocks of least influence and return their indices in the dense model."""
    count = count_to_drop(config, len(decoder.blocks))
    with stopwatch.phase("calibrate"):
        influences = block_influences(model, decoder.blocks, windows, method)
    removed = frozenset(sorted(range(len(influences)), key=influences.__getitem__)[:count])
    with stopwatch.phase("prune"):
        drop_blocks(model, decoder, removed)
    return removed


def _walk(
    model: nn.Module,
    decoder: Decoder,
    targets: Mapping[str, float],
    method: ScoreMethod,
    config: PruneConfig,
    windows: Tensor | None,
    stopwatch: Stopwatch,
) -> None:
    """Prune block after block; with `propagate=pruned` later blocks are measured behind the pruned earlier ones."""
    mask = mask_rule(config, method)
    with stopwatch.phase("calibrate"):
        measured = windows if method.needs_calibration else None
        flow = Activations.capture(model, decoder.blocks, measured) if measured is not None else None
    for block in tqdm(decoder.blocks, desc=f"pruning ({config.method})", unit="block", disable=None):
        linears = [linear for linear in block.linears if linear.name in targets]
        is_last = block is decoder.blocks[-1]
        with stopwatch.phase("calibrate"):
            dense_flow = config.propagate == "dense" and not is_last
            statistics = flow.measure(block, linears, advance=dense_flow) if flow and linears else {}
        with stopwatch.phase("prune"):
            for linear in linears:
                apply(linear, method, statistics.get(linear.name), partial(mask, sparsity=targets[linear.name]))
        with stopwatch.phase("calibrate"):
            if flow and not is_last and not (dense_flow and linears):
                flow.advance(block)


def mask_rule(config: PruneConfig, method: ScoreMethod) -> Callable[..., Tensor]:
    """Return the function `(score [out in], sparsity) -> keep [out in]` that pattern and group of comparison make."""
    if config.group is not None:
        kept, size = config.group
        return lambda score, sparsity: keep_pattern(score, kept, size)
    compare = method.compare if config.compare == "auto" else config.compare
    return lambda score, sparsity: keep_mask(score, sparsity, compare)


@torch.no_grad()
def apply(
    linear: Linear, method: ScoreMethod, statistics: InputStatistics | None, mask: Callable[[Tensor], Tensor]
) -> None:
    """Set the lowest-scored weights of one Linear to zero, in place."""
    weight = linear.module.weight
    try:
        keep = mask(method.score(weight, statistics))
    except PruningError as error:
        raise PruningError(f"{linear.name}: {error}") from None
    weight.masked_fill_(~keep, 0)


def _check(report: PruneReport, linears: Mapping[str, Linear]) -> None:
    """A mask removes at most one weight a row less than asked; already zero weights can only add."""
    for item in report.linears:
        rows = linears[item.name].module.weight.shape[0]
        if item.zeros < item.weights * item.target - rows:
            raise PruningError(
                f"{item.name}: {item.zeros} of {item.weights} weights are zero, but {item.target:.4f} was asked for"
            )
