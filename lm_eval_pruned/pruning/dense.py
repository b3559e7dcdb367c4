"""Dense models: digest of the weights, fingerprint with a recipe, number of parameters and zeros, before pruning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from lm_eval_pruned.process_memory import explain_out_of_memory
from lm_eval_pruned.progress import progress_bar
from lm_eval_pruned.pruning.allocations.signals.kinds import OfMatrix, measure_matrix
from lm_eval_pruned.pruning.artifacts.fingerprint import WeightsHash, fingerprint
from lm_eval_pruned.pruning.artifacts.report import Stopwatch
from lm_eval_pruned.pruning.artifacts.store import Store
from lm_eval_pruned.pruning.calibration.calibration import Calibration
from lm_eval_pruned.pruning.calibration.replay import Beside, longest_window, memory_errors_alone, run_once
from lm_eval_pruned.pruning.checks import zeros_inside
from lm_eval_pruned.pruning.model.decoder import Decoder
from lm_eval_pruned.pruning.model.residency import RESIDENT
from lm_eval_pruned.pruning.recipe import Recipe
from lm_eval_pruned.pruning.reproducible import reproducible


class Dense(NamedTuple):
    """Properties of a model before it is pruned.

    Attributes:
        fingerprint: of the model with a recipe and its calibration windows.
        sha256: of its weights.
        parameters: how many it has.
        zeros: how many weights of each Linear are zero, by name.
        measured: `Signal.of_matrix` of each Linear, by name, if it was measured while the weights were hashed.
    """

    fingerprint: str
    sha256: str
    parameters: int
    zeros: Mapping[str, int]
    measured: Mapping[str, float]


def read_dense(
    decoder: Decoder, recipe: Recipe, calibration: Calibration | None, store: Store | None, stopwatch: Stopwatch
) -> Dense:
    """Read all weights once: hash them, count their zeros, and measure a signal that reads single matrices.

    An offloaded model that will be calibrated is run with one window meanwhile; without that, calibration would read
    the weights once more.

    Args:
        decoder: the dense model.
        recipe: how it will be pruned.
        calibration: its calibration windows, if any.
        store: artifacts of earlier runs, one of which may make calibration and measurements unnecessary.
        stopwatch: times the measurements.
    """
    identity = calibration.identity if calibration else None

    def named(weights: str) -> str:
        return fingerprint(recipe.determining(), decoder, weights=weights, windows=identity)

    zeros: dict[str, int] = {}
    is_stored = store is not None and any(store.holds(named(one)) for one in store.dense_digests())
    to_measure = None if is_stored or decoder.residency is RESIDENT else recipe.signal_of_matrices
    with ThreadPoolExecutor() as pool, _measuring(decoder, recipe, to_measure) as (measure, measured):
        weights = WeightsHash(decoder, pool)

        @contextmanager
        def beside(module: nn.Module) -> Iterator[None]:
            with weights.add(module):
                zeros.update(zeros_inside(module, decoder))
                with stopwatch.phase("allocate"):
                    measure(module)
                yield

        if calibration is None or decoder.residency is RESIDENT or is_stored or not _run(decoder, calibration, beside):
            for module in decoder.residency.onload_each(decoder.residency.modules(decoder.model)):
                with beside(module):
                    pass
        found = weights.digest()
    parameters = sum(parameter.numel() for parameter in decoder.model.parameters())
    return Dense(fingerprint=named(found), sha256=found, parameters=parameters, zeros=zeros, measured=measured)


@contextmanager
def _measuring(
    decoder: Decoder, recipe: Recipe, of_matrix: OfMatrix | None
) -> Iterator[tuple[Callable[[nn.Module], None], Mapping[str, float]]]:
    """Yield a function that measures the Linears in scope of a block, and what it has measured, by name."""
    measured: dict[str, float] = {}
    if of_matrix is None:
        yield lambda module: None, measured
        return
    scoped = {
        block.module: [one for one in block.linears if recipe.config.scope in ("all", one.sublayer)]
        for block in decoder.blocks
    }
    with progress_bar(sum(map(len, scoped.values())), desc=recipe.config.alloc, unit="matrix") as progress:

        def measure(module: nn.Module) -> None:
            with torch.no_grad(), explain_out_of_memory(), reproducible():
                for linear in scoped.get(module, ()):
                    measured[linear.name] = measure_matrix(of_matrix, linear)
                    progress.update()

        yield measure, measured


def _run(decoder: Decoder, calibration: Calibration, beside: Beside) -> bool:
    """Run an offloaded model with a window, and return whether all its weights were seen."""
    residency = decoder.residency
    blocks = {block.module for block in decoder.blocks}
    with (
        evaluating(decoder.model),
        explain_out_of_memory(),
        reproducible(),
        residency.forward_pass(),
        # Whatever a model raises, it raises again when it is calibrated.
        memory_errors_alone(),
    ):
        ran = run_once(decoder, longest_window(calibration.windows()), beside)
        for module in residency.modules(decoder.model) if ran else ():
            if module not in blocks:
                with residency.onload(module), beside(module):
                    pass
        return ran
    return False


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put `model` into evaluation mode for a `with` block."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
