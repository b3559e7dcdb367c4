"""The sparsities that a search found, with the KL divergence along held-out windows as fitness."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.divergence.head import TwoParts, Whole, divide
from lm_eval_pruned.divergence.measure import dense_traces, mean_kl
from lm_eval_pruned.divergence.traces import TokenTrace
from lm_eval_pruned.errors import ArgumentError, PruningError
from lm_eval_pruned.progress import progress_bar
from lm_eval_pruned.pruning.allocations.level_switches import search_levels
from lm_eval_pruned.pruning.allocations.signals.kinds import DenseModel, Needs, Signal
from lm_eval_pruned.pruning.artifacts.journal import Journal
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.calibration.calibrator import calibrate
from lm_eval_pruned.pruning.calibration.observed import Observed
from lm_eval_pruned.pruning.calibration.statistics import InputNorm, InputStatistics
from lm_eval_pruned.pruning.calibration.window_traces import counted_responses, window_traces
from lm_eval_pruned.pruning.masks.rule import MaskRule
from lm_eval_pruned.pruning.methods import METHODS, ScoreMethod
from lm_eval_pruned.pruning.methods.steps import linear_step
from lm_eval_pruned.pruning.model.decoder import Decoder, Linear
from lm_eval_pruned.pruning.model.flops import Work, dense_calibration, forward, total
from lm_eval_pruned.pruning.model.residency import RESIDENT
from lm_eval_pruned.pruning.model.shapes import SHORT_WINDOW, Architecture, WindowShape, count_weights

# One in this many windows, at the end, is held out.
HELD_OUT = 8
# Up to this many, the logits of the dense model are kept, so that candidates do not compute them again.
KEPT_LOGITS = 1 << 26


@torch.no_grad()
def searched_sparsities(dense: DenseModel, config: PruneConfig) -> Float[Tensor, "groups blocks"]:
    """Return the sparsities of the best candidate; the model is as it was.

    Input norms are measured once, with dense activations. A candidate prunes those blocks whose sparsity is another
    one, and is run along the held-out windows once. Methods that solve are searched with Wanda's scores.

    Raises:
        ArgumentError: there are fewer than two windows, or only windows of one token.
        PruningError: the weights are not all in memory, or logits are not finite.
    """
    windows, decoder = dense.required_windows(), dense.decoder
    if decoder.residency is not RESIDENT:
        raise PruningError("alloc=search runs the whole model: its weights have to be in memory all at once")
    if len(windows) < 2:
        raise ArgumentError("alloc=search needs at least two calibration windows, one of them held out")
    count = held_out_windows(len(windows))
    traces, counted = window_traces(windows[-count:]), counted_responses(windows[-count:])
    evaluations = config.search_evaluations
    with progress_bar(evaluations, desc="search", unit="candidate") as progress:
        norms = input_norms(dense, windows[:-count])
        # All groups together: this allocation does not split blocks.
        blocks = dense.groups[0].blocks
        model = parts_to_compare(decoder, traces)
        along = dense_traces(model, traces)
        journal = Journal.read(dense.journal)
        with Candidates.of(blocks, norms, config).restored() as candidates:

            def measure(sparsities: list[float]) -> float:
                candidates.prune(sparsities)
                return mean_kl(model, along, counted)

            def fitness(sparsities: Tensor) -> float:
                listed: list[float] = sparsities.tolist()
                progress.update()
                return journal.once(json.dumps(listed), lambda: measure(listed))

            found = search_levels(
                fitness, config.target, dense.groups[0].sizes(), evaluations=evaluations, seed=config.search_seed
            )
    return found.sparsities[None]


def parts_to_compare(decoder: Decoder, traces: Sequence[TokenTrace]) -> TwoParts:
    """Return the model as it is compared with the dense one: by its logits where they are few, else divided."""
    ids = torch.tensor([traces[0].ids[:SHORT_WINDOW]], device=decoder.device)
    parts = divide(decoder.model, ids)
    vocabulary = parts.logits(parts.states(ids)[0, :1]).shape[-1]
    keeps = keeps_logits(sum(trace.tokens for trace in traces), vocabulary)
    return Whole(decoder.model) if keeps else parts


def keeps_logits(tokens: int, vocabulary: int) -> bool:
    """Return whether the dense logits of all held-out tokens are kept.

    Example:
        >>> keeps_logits(512, 49_152), keeps_logits(16 * 2_048, 151_936)
        (True, False)
    """
    return tokens * vocabulary <= KEPT_LOGITS


def held_out_windows(windows: int) -> int:
    """Return how many of the windows, at the end, are held out."""
    return max(1, windows // HELD_OUT)


def input_norms(dense: DenseModel, windows: Windows) -> dict[str, InputStatistics]:
    """Measure the norms of the inputs of all Linears, with dense activations."""
    decoder = dense.decoder
    linears = {index: list(one) for index, one in enumerate(dense.groups[0].blocks)}
    observed = Observed(linears=linears, collect=InputNorm, dense=True)
    calibrator = calibrate(decoder, windows, observed, lambda _: None)
    norms: dict[str, InputStatistics] = {}
    for block in decoder.blocks:
        norms |= calibrator.measure(block)
        calibrator.advance(block)
    return norms


@dataclass(slots=True)
class Candidates:
    """A model that is pruned to one list of sparsities after another.

    Attributes:
        blocks: the Linears of each block.
        norms: statistics of their inputs, by name.
        config: method and ranking.
        dense: the dense weights, by name.
        pruned: the sparsity that each block has now; None for a dense one.
    """

    blocks: Sequence[Sequence[Linear]]
    norms: dict[str, InputStatistics]
    config: PruneConfig
    dense: dict[str, Tensor]
    pruned: list[float | None] = field(default_factory=list)

    @classmethod
    def of(
        cls, blocks: Sequence[Sequence[Linear]], norms: dict[str, InputStatistics], config: PruneConfig
    ) -> Candidates:
        """Copy the dense weights."""
        weights = {one.name: one.weight.detach().clone() for linears in blocks for one in linears}
        return cls(blocks, norms, config, weights, [None] * len(blocks))

    @contextmanager
    def restored(self) -> Iterator[Candidates]:
        """Put the dense weights back after a `with` block."""
        try:
            yield self
        finally:
            for linears in self.blocks:
                self._restore(linears)

    def prune(self, sparsities: Sequence[float]) -> None:
        """Prune each block whose sparsity changes, from its dense weights."""
        method = METHODS[self.config.method]
        used = method if isinstance(method, ScoreMethod) else METHODS["wanda"]
        step = linear_step(used, self.config.random_seed)
        compare = used.compare if self.config.compare == "auto" else self.config.compare
        for index, (linears, sparsity) in enumerate(zip(self.blocks, sparsities, strict=True)):
            if sparsity != self.pruned[index]:
                self._restore(linears)
                for linear in linears:
                    step.prune(linear, self.norms.get(linear.name), MaskRule(sparsity=sparsity, compare=compare))
                self.pruned[index] = sparsity

    @torch.no_grad()
    def _restore(self, linears: Sequence[Linear]) -> None:
        for linear in linears:
            linear.weight.copy_(self.dense[linear.name])


def _work(architecture: Architecture, windows: WindowShape, config: PruneConfig) -> Work:
    """Count a dense calibration, a dense pass of the held-out windows, and a pass with one or two heads a candidate."""
    blocks, held_out = architecture.blocks, held_out_windows(windows.samples)
    short, held = WindowShape(1, min(SHORT_WINDOW, windows.seqlen)), WindowShape(held_out, windows.seqlen)
    runs = config.search_evaluations
    candidates = WindowShape(held_out * (runs + 1), windows.seqlen)
    passes = [forward(block, shape) for block in blocks for shape in (short, short, short, candidates)]
    compared = held.samples * (held.seqlen - 1)
    keeps = keeps_logits(compared, architecture.vocabulary)
    tokens = 2 * short.seqlen + 1 + ((runs + 1) * held.samples * held.seqlen if keeps else 2 * runs * compared)
    head = Work(matmul_flops=2 * tokens * architecture.hidden * architecture.vocabulary)
    ranked = Work(sorted=runs * count_weights(architecture.scoped))
    return total(
        [dense_calibration(blocks, windows._replace(samples=windows.samples - held_out)), *passes, head, ranked]
    )


SEARCHED = Signal(
    name="searched",
    needs=Needs.ACTIVATIONS,
    measure=searched_sparsities,
    work=_work,
    description="a search over the sparsities of the blocks",
    settings=("search_evaluations", "search_seed"),
    runs_whole_model=True,
    least_windows=2,
)
