"""The engine: a recipe applied to a model, or read back from what an earlier run has kept of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, PruningError
from lm_eval_pruned.process_memory import naming_shortage
from lm_eval_pruned.pruning.allocate import allocate, mean_target
from lm_eval_pruned.pruning.artifacts.apply import replay
from lm_eval_pruned.pruning.artifacts.fingerprint import fingerprint, windows_digest
from lm_eval_pruned.pruning.artifacts.report import Outcome, PruneReport, Stopwatch, build_report
from lm_eval_pruned.pruning.artifacts.store import SCORES, Artifact, Store
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.calibration.statistics import InputGram, InputNorm
from lm_eval_pruned.pruning.methods import DropMethod, ScoreMethod, SolveMethod
from lm_eval_pruned.pruning.model.decoder import Block, Decoder, find_decoder
from lm_eval_pruned.pruning.model.drop_blocks import block_influences, count_to_drop, drop_blocks
from lm_eval_pruned.pruning.model.residency import IN_MEMORY
from lm_eval_pruned.pruning.model.tour import Tour
from lm_eval_pruned.pruning.recipe import Recipe, resolve
from lm_eval_pruned.pruning.sequential import by_score, by_solving, walk

logger = logging.getLogger(__name__)

# A trained weight is hardly ever exactly 0; more zeros than this mean that somebody has pruned before.
ZEROS_OF_A_DENSE_MODEL = 1e-3


class Calibration(NamedTuple):
    """Calibration windows that need not exist yet: what identifies them, and what makes them."""

    identity: str
    windows: Callable[[], Windows]


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
    return prune_decoder(model, find_decoder(model), config, windows, artifacts=artifacts, stopwatch=stopwatch)


def prune_decoder(
    model: nn.Module,
    decoder: Decoder,
    config: PruneConfig,
    windows: Windows | Calibration | None = None,
    *,
    artifacts: Path | None = None,
    stopwatch: Stopwatch | None = None,
    kept: MutableMapping[str, Tensor] | None = None,
    leave: Callable[[Block], object] = lambda block: None,
) -> PruneReport:
    """Prune as `prune_model` does, block by block wherever the weights of `decoder` are.

    `kept` takes what an artifact keeps until it is complete. `leave` gets every block that stays, pruned, while its
    weights are in memory.
    """
    recipe = resolve(config)
    stopwatch = stopwatch or Stopwatch()
    check_supported(recipe, model)
    check_present(model, decoder)
    model_weights = sum(parameter.numel() for parameter in model.parameters())
    calibration = _calibration(recipe, windows)
    identity = calibration.identity if calibration else None
    digest = fingerprint(recipe.determining(), model, windows=identity, presence=decoder.presence)
    tensors = {} if kept is None else kept

    def report_of(outcome: Outcome, kept: Mapping[str, Tensor]) -> PruneReport:
        return _report(outcome, recipe, model, decoder, model_weights, digest, stopwatch, kept)

    def make() -> Artifact:
        with stopwatch.phase("calibrate"):
            made = calibration.windows() if calibration else None
        with evaluating(model), naming_shortage():
            outcome = prune(recipe, model, decoder, made, stopwatch, tensors, leave)
        return Artifact(report_of(outcome, tensors).as_dict(), tensors)

    if artifacts is None or recipe.method is None:
        artifact, is_new = make(), True
    else:
        artifact, is_new = Store(folder=artifacts).read_or_make(digest, make)
    if is_new:
        report = replace(PruneReport.from_dict(artifact.report), scores=_scores(artifact.tensors))
    else:
        logger.info("what was pruned before is read from %s: nothing is calibrated", Path(str(artifacts)) / digest)
        with stopwatch.phase("prune"):
            outcome = replay(artifact, model, decoder, leave)
        report = report_of(outcome, artifact.tensors)
    logger.info("%s: %d of %d weights are zero", config.method, report.zero_weights, report.prunable_weights)
    return report


def check_supported(recipe: Recipe, model: nn.Module) -> None:
    """Refuse a kind of model before anything is read of it.

    Raises:
        PruningError: it has an encoder, or is quantised.
    """
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise PruningError(f"{type(model).__name__} has an encoder: only decoder-only language models are pruned")
    if recipe.method is not None and getattr(config, "quantization_config", None) is not None:
        raise PruningError(
            "the model is quantised, and what its weights are worth does not show in their codes: prune the model it "
            "was made from (`lm-eval-pruned prune`) and quantise what that writes"
        )


def check_present(model: nn.Module, decoder: Decoder) -> None:
    """Refuse a model of which there is less than its `decoder` says.

    Raises:
        PruningError: a part of it was loaded to the disk.
    """
    if decoder.presence is IN_MEMORY and any(parameter.is_meta for parameter in model.parameters()):
        raise PruningError(
            "a part of the model was left outside of memory by device_map, parallelize or max_memory: give it more or "
            "larger devices, or let `lm-eval-pruned prune`, which needs one block at a time, write a checkpoint first"
        )


def prune(
    recipe: Recipe,
    model: nn.Module,
    decoder: Decoder,
    windows: Windows | None,
    stopwatch: Stopwatch,
    kept: MutableMapping[str, Tensor],
    leave: Callable[[Block], object],
) -> Outcome:
    """Prune `model` in place, put what an artifact keeps of it into `kept`, and return what was done."""
    if isinstance(recipe.method, DropMethod):
        targets, removed, tour = _drop(recipe.config, recipe.method, model, decoder, windows, stopwatch, leave)
        return Outcome(targets, removed, tour.zeros)
    with stopwatch.phase("allocate"):
        targets, signal = allocate(recipe, model, decoder, windows)
    if recipe.allocation.signal == "influence":
        kept[SCORES] = signal.T.contiguous()
    tour = Tour(decoder=decoder, leave=leave)
    measured = windows if recipe.method is not None and recipe.method.needs_calibration else None
    each = partial(walk, model, tour, targets, recipe, measured, stopwatch, kept=kept)
    match recipe.method:
        case None:
            tour.finish()
        case ScoreMethod() as method:
            each(collect=InputNorm, prune=by_score(method))
        case SolveMethod() as method:
            each(collect=InputGram, prune=by_solving(method))
    _say_if_pruned_before(tour)
    return Outcome(targets, frozenset(), tour.zeros)


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
    leave: Callable[[Block], object],
) -> tuple[dict[str, float], frozenset[int], Tour]:
    """Drop the blocks of least influence; their Linears have a target of 1, all others of 0."""
    assert windows is not None, "a drop method always needs calibration"
    count = count_to_drop(config, len(decoder.blocks))
    with stopwatch.phase("calibrate"):
        influences = block_influences(model, decoder, windows, method)
    removed = frozenset(sorted(range(len(influences)), key=influences.__getitem__)[:count])
    targets = {linear.name: float(block.index in removed) for block in decoder.blocks for linear in block.linears}
    with stopwatch.phase("prune"):
        tour = Tour(decoder=drop_blocks(model, decoder, removed), leave=leave)
        tour.finish()
    return targets, removed, tour


def _scores(tensors: Mapping[str, Tensor]) -> NDArray[np.float64] | None:
    return tensors[SCORES].numpy() if SCORES in tensors else None


def _report(
    outcome: Outcome,
    recipe: Recipe,
    model: nn.Module,
    decoder: Decoder,
    model_weights: int,
    digest: str,
    stopwatch: Stopwatch,
    tensors: Mapping[str, Tensor],
) -> PruneReport:
    """Count the outcome.

    Raises:
        PruningError: a matrix has more or fewer zeros than it was to have, by more than one a row.
    """
    config = recipe.config
    report = build_report(
        model,
        decoder,
        outcome,
        config=recipe.effective(),
        target_sparsity=config.target if config.is_stated else mean_target(outcome.targets, decoder),
        model_weights=model_weights,
        fingerprint=digest,
        seconds=stopwatch.seconds,
        scores=_scores(tensors),
    )
    rows = {linear.name: len(linear.weight) for block in decoder.blocks for linear in block.linears}
    for item in report.linears if recipe.method is not None else ():
        surplus = item.zeros - item.weights * item.target
        wrong = f"{item.name}: {item.zeros} of {item.weights} weights are zero, but {item.target:.4f} was asked for"
        if surplus < -rows[item.name]:
            raise PruningError(wrong)
        if surplus > rows[item.name] + item.weights * ZEROS_OF_A_DENSE_MODEL:
            raise PruningError(f"{wrong}: the model was pruned before; ask for no less, or take the dense one")
    return report


def _say_if_pruned_before(tour: Tour) -> None:
    total = sum(linear.weight.numel() for block in tour.decoder.blocks for linear in block.linears)
    if tour.before > total * ZEROS_OF_A_DENSE_MODEL:
        logger.warning(
            "%d of the %d prunable weights were zero before: they count towards the achieved sparsity",
            tour.before,
            total,
        )
