"""The engine: a recipe applied to a model, or read back from what an earlier run has kept of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, PruningError
from lm_eval_pruned.pruning.activations import Windows
from lm_eval_pruned.pruning.allocate import allocate, mean_target
from lm_eval_pruned.pruning.artifact import SCORES, Artifact, Store
from lm_eval_pruned.pruning.blocks import Decoder, find_decoder
from lm_eval_pruned.pruning.dropping import block_influences, count_to_drop, drop_blocks
from lm_eval_pruned.pruning.fingerprint import fingerprint, windows_digest
from lm_eval_pruned.pruning.methods import DropMethod, ScoreMethod, SolveMethod
from lm_eval_pruned.pruning.packing import count_zeros, zero_out, zeroed
from lm_eval_pruned.pruning.recipe import Recipe, resolve
from lm_eval_pruned.pruning.report import PruneReport, Stopwatch, build_report
from lm_eval_pruned.pruning.shortage import naming_shortage
from lm_eval_pruned.pruning.stats import InputGram, InputNorm
from lm_eval_pruned.pruning.walk import by_score, by_solving, walk

logger = logging.getLogger(__name__)

# A trained weight is hardly ever exactly 0; more zeros than this mean that somebody has pruned before.
ZEROS_OF_A_DENSE_MODEL = 1e-3


class Calibration(NamedTuple):
    """Calibration windows that need not exist yet: what identifies them, and what makes them."""

    identity: str
    windows: Callable[[], Windows]


class Outcome(NamedTuple):
    """What pruning did to a model: target of every Linear in scope, dropped blocks, and what an artifact keeps."""

    targets: Mapping[str, float]
    removed: Collection[int]
    tensors: Mapping[str, Tensor]


def prune_model(
    model: nn.Module,
    config: PruneConfig,
    windows: Windows | Calibration | None = None,
    *,
    artifacts: Path | None = None,
    stopwatch: Stopwatch | None = None,
) -> PruneReport:
    """Set weights of `model` to zero, in place, and return the report counted from the outcome.

    Args:
        model: a causal language model of transformers, loaded in any floating dtype.
        config: method, allocation, sparsity and everything else that decides which weights go.
        windows: calibration token ids [samples seqlen], or a `Calibration` that makes them when they are needed;
            `pruning.calibration.load_windows` reads them from text.
        artifacts: folder in which the masks are kept; where it holds those of this very configuration, weights and
            windows, they are applied and nothing is calibrated.
        stopwatch: carries seconds already spent on loading into the report.

    Raises:
        ArgumentError: the method needs calibration windows and none were given.
        PruningError: nothing matches, a number is not finite, or the outcome is not what was asked for.
    """
    recipe = resolve(config)
    stopwatch = stopwatch or Stopwatch()
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise PruningError(f"{type(model).__name__} has an encoder: only decoder-only language models are pruned")
    calibration = _calibration(recipe, windows)
    decoder = find_decoder(model)
    identity = calibration.identity if calibration else None
    digest = fingerprint(recipe.determining(), model, windows=identity)

    def make() -> Artifact:
        with stopwatch.phase("calibrate"):
            made = calibration.windows() if calibration else None
        _say_if_pruned_before(decoder)
        with evaluating(model), naming_shortage():
            outcome = prune(recipe, model, decoder, made, stopwatch)
        return Artifact(_report(outcome, recipe, model, decoder, digest, stopwatch).as_dict(), outcome.tensors)

    if artifacts is None or recipe.method is None:
        artifact = make()
    else:
        artifact, is_new = Store(folder=artifacts).read_or_make(digest, make)
        if not is_new:
            logger.info("what was pruned before is read from %s: nothing is calibrated", artifacts / digest)
            with stopwatch.phase("prune"):
                replay(artifact, model, decoder)
    report = _report(_outcome(artifact), recipe, model, decoder, digest, stopwatch)
    logger.info("%s: %d of %d weights are zero", config.method, report.zero_weights, report.prunable_weights)
    return report


def prune(recipe: Recipe, model: nn.Module, decoder: Decoder, windows: Windows | None, stopwatch: Stopwatch) -> Outcome:
    """Prune `model` in place and return what was done to it."""
    if isinstance(recipe.method, DropMethod):
        return Outcome(*_drop(recipe.config, recipe.method, model, decoder, windows, stopwatch), {})
    with stopwatch.phase("allocate"):
        targets, signal = allocate(recipe, model, decoder, windows)
    measured = windows if recipe.method is not None and recipe.method.needs_calibration else None
    each = partial(walk, model, decoder, targets, recipe, measured, stopwatch)
    match recipe.method:
        case None:
            tensors: dict[str, Tensor] = {}
        case ScoreMethod() as method:
            tensors = each(collect=InputNorm, prune=by_score(method))
        case SolveMethod() as method:
            tensors = each(collect=InputGram, prune=by_solving(method))
    if recipe.allocation.signal == "influence":
        tensors[SCORES] = signal.T.contiguous()
    return Outcome(targets, frozenset(), tensors)


@torch.no_grad()
def replay(artifact: Artifact, model: nn.Module, decoder: Decoder) -> None:
    """Do to `model` in place what an artifact says was done to the same weights before."""
    drop_blocks(model, decoder, _outcome(artifact).removed)
    for linear in (linear for block in decoder.blocks for linear in block.linears):
        kept = artifact.tensors.get(linear.name)
        if kept is None:
            continue
        if kept.dtype != torch.uint8:
            linear.weight.copy_(kept)
        elif linear.weight is linear.factor and linear.weight.device.type == "cpu":
            linear.weight.data = zeroed(linear.weight, kept)
        else:
            zero_out(linear.weight, kept)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put `model` into evaluation mode for the length of a `with` block."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _calibration(recipe: Recipe, windows: Windows | Calibration | None) -> Calibration | None:
    if not recipe.needs_calibration:
        return None
    if windows is None:
        needs = f"method={recipe.config.method}, alloc={recipe.config.alloc}"
        raise ArgumentError(f"{needs} needs calibration windows: pass token ids [samples, seqlen]")
    if isinstance(windows, Calibration):
        return windows
    return Calibration(windows_digest(windows), lambda: windows)


def _drop(
    config: PruneConfig,
    method: DropMethod,
    model: nn.Module,
    decoder: Decoder,
    windows: Windows | None,
    stopwatch: Stopwatch,
) -> tuple[dict[str, float], frozenset[int]]:
    """Drop the blocks of least influence; their Linears have a target of 1, all others of 0."""
    assert windows is not None, "a drop method always needs calibration"
    count = count_to_drop(config, len(decoder.blocks))
    with stopwatch.phase("calibrate"):
        influences = block_influences(model, decoder.blocks, windows, method)
    removed = frozenset(sorted(range(len(influences)), key=influences.__getitem__)[:count])
    with stopwatch.phase("prune"):
        drop_blocks(model, decoder, removed)
    return {linear.name: float(block.index in removed) for block in decoder.blocks for linear in block.linears}, removed


def _outcome(artifact: Artifact) -> Outcome:
    report = cast("dict[str, list[dict[str, object]]]", artifact.report)
    targets = {str(item["name"]): float(str(item["target"])) for item in report["linears"]}
    return Outcome(targets, frozenset(cast("list[int]", artifact.report["removed_blocks"])), artifact.tensors)


def _report(
    outcome: Outcome, recipe: Recipe, model: nn.Module, decoder: Decoder, digest: str, stopwatch: Stopwatch
) -> PruneReport:
    """Count the outcome.

    Raises:
        PruningError: a matrix has lost fewer weights than it was to lose, by more than one a row.
    """
    config = recipe.config
    asked = config.sparsity is not None or config.group is not None
    report = build_report(
        model,
        decoder,
        outcome.targets,
        removed=outcome.removed,
        config=recipe.effective(),
        target_sparsity=config.target if asked else mean_target(outcome.targets, decoder),
        fingerprint=digest,
        seconds=stopwatch.seconds,
        scores=outcome.tensors.get(SCORES),
    )
    rows = {linear.name: len(linear.weight) for block in decoder.blocks for linear in block.linears}
    for item in report.linears:
        if item.zeros < item.weights * item.target - rows[item.name]:
            raise PruningError(
                f"{item.name}: {item.zeros} of {item.weights} weights are zero, but {item.target:.4f} was asked for"
            )
    return report


def _say_if_pruned_before(decoder: Decoder) -> None:
    weights = [linear.weight for block in decoder.blocks for linear in block.linears]
    total = sum(weight.numel() for weight in weights)
    zeros = sum(map(count_zeros, weights))
    if zeros > total * ZEROS_OF_A_DENSE_MODEL:
        logger.warning(
            "%d of the %d prunable weights are zero already: they count towards the achieved sparsity", zeros, total
        )
