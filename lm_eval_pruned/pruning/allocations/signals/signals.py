"""Signals: what an allocation reads of a dense model, one number for every group of parts in every block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.pruning.allocations.kinds import Signal
from lm_eval_pruned.pruning.allocations.signals.influence import influences
from lm_eval_pruned.pruning.allocations.signals.spectrum import tail_exponent
from lm_eval_pruned.pruning.calibration.activations import Activations, Windows
from lm_eval_pruned.pruning.calibration.statistics import InputNorm, InputStatistics
from lm_eval_pruned.pruning.methods.wanda import wanda
from lm_eval_pruned.pruning.model.decoder import Decoder, Linear


class Dense(NamedTuple):
    """A model before pruning, and the Linears in scope by group and block."""

    model: nn.Module
    decoder: Decoder
    scoped: Sequence[Sequence[Sequence[Linear]]]
    windows: Windows | None

    def given_windows(self) -> Windows:
        """Return the calibration windows.

        Raises:
            ArgumentError: there are none.
        """
        if self.windows is None:
            raise ArgumentError("this allocation needs calibration windows: pass token ids [samples, seqlen]")
        return self.windows


@torch.no_grad()
def outlier_ratios(dense: Dense, config: PruneConfig) -> Float[Tensor, "groups blocks"]:
    """Return the percentage of Wanda scores above `owl_m` times their mean, nothing pruned.

    D_l = 100 #{A > M mean(A)} / #A over all matrices in scope of block l together; 0 for a block without any.

    Reference: Yin et al. 2023, arXiv 2310.05175.
    """

    def ratio(scores: Callable[[], Iterator[Tensor]]) -> float:
        # Scores are made twice rather than kept: those of a whole block in float32 can be larger than the block.
        count = sum(score.numel() for score in scores())
        mean = sum(float(score.double().sum()) for score in scores()) / count
        return 100 * sum(int((score > config.owl_m * mean).sum()) for score in scores()) / count

    return _over_scores(dense, ratio, "owl")


@torch.no_grad()
def median_scores(dense: Dense, config: PruneConfig) -> Float[Tensor, "groups blocks"]:
    """Return the median of the Wanda scores, the lower one of two; 0 for a block without any, nothing pruned.

    Reference: Chen et al. 2025, arXiv 2505.23807.
    """
    del config
    return _over_scores(dense, lambda scores: float(torch.cat([score.flatten() for score in scores()]).median()), "dlp")


@torch.no_grad()
def tail_exponents(dense: Dense, config: PruneConfig) -> Float[Tensor, "groups blocks"]:
    """Return the mean exponent of the spectral tails of the matrices of each block; needs no windows.

    Reference: Lu et al. 2024, arXiv 2410.10912.
    """
    del config
    total = sum(len(linears) for blocks in dense.scoped for linears in blocks)
    with tqdm(total=total, desc="alphapruning", unit="matrix", disable=None) as progress:

        def mean(linears: Sequence[Linear]) -> float:
            exponents = []
            for linear in linears:
                exponents.append(tail_exponent(linear.weight))
                progress.update()
            return sum(exponents) / len(exponents) if exponents else 0.0

        rows = []
        for block in dense.decoder.blocks:
            with dense.decoder.presence.of(block.module):
                rows.append([mean(blocks[block.index]) for blocks in dense.scoped])
    return _table(rows).T


def gradient_influences(dense: Dense, config: PruneConfig) -> Float[Tensor, "groups blocks"]:
    """Return LayerIF's scores: how far training gradients point the way of held-out ones."""
    del config
    return influences(dense.model, dense.decoder.blocks, dense.scoped, dense.given_windows())


SIGNALS: Mapping[Signal, Callable[[Dense, PruneConfig], Tensor]] = {
    "none": lambda dense, config: _table([[0.0] * len(dense.decoder.blocks)] * len(dense.scoped)),
    "outlier_ratio": outlier_ratios,
    "median_score": median_scores,
    "tail_exponent": tail_exponents,
    "influence": gradient_influences,
}


def _over_scores(
    dense: Dense, reduce: Callable[[Callable[[], Iterator[Tensor]]], float], name: str
) -> Float[Tensor, "groups blocks"]:
    """Reduce the Wanda scores of every group and block to a number while dense activations flow past."""
    windows, decoder = dense.given_windows(), dense.decoder
    with tqdm(total=len(windows) * len(decoder.blocks), desc=name, unit="window", disable=None) as progress:
        flow = Activations.capture(dense.model, decoder, windows, progress.update)
        rows = []
        for block in decoder.blocks:
            groups = [blocks[block.index] for blocks in dense.scoped]
            linears = [linear for group in groups for linear in group]
            is_last = block is decoder.blocks[-1]
            with decoder.presence.of(block.module):
                statistics = flow.measure(block, linears, InputNorm, advance=not is_last)
                rows.append([reduce(_scores(group, statistics)) if group else 0.0 for group in groups])
    return _table(rows).T


def _scores(linears: Sequence[Linear], seen: Mapping[str, InputStatistics]) -> Callable[[], Iterator[Tensor]]:
    """Return what yields the scores of the Linears; experts that no token reached have none."""
    return lambda: (wanda(linear.weight, seen[linear.name]) for linear in linears if linear.name in seen)


def _table(rows: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)
