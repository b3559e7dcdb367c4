"""Searching the sparsities of the blocks: probes say where weights are worth most, level switches try what is left."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.pruning.allocations.target import HIGHEST, shift_to_target

# Maps the sparsities of the blocks to a number; lower is better.
Fitness: TypeAlias = Callable[[Float[Tensor, " blocks"]], float]

# A probe gives some blocks this fraction of their weights back.
PROBE = 0.1
# A run of blocks is worth at least this part of the mean, however little its probe gained.
LEAST_WORTH = 0.2
# Rates at which the logarithm of the damage of a block grows with its sparsity. Those of SmolLM2-135M are about 10 to
# 15 at 50 to 70 %; slower ones are tried if the first is better than the second.
FASTER, SLOWER = (10.0, 15.0, 22.0, 33.0, 50.0), (6.7, 4.4, 3.0)
# How far a switch moves the smaller of its two blocks.
STEPS = (0.025, 0.05, 0.1)


class Searched(NamedTuple):
    """The best candidate, with its fitness and the number of lists that were evaluated."""

    sparsities: Float[Tensor, " blocks"]
    fitness: float
    evaluations: int


def search_levels(
    fitness: Fitness, target: float, sizes: Float[Tensor, " blocks"], *, evaluations: int, seed: int
) -> Searched:
    """Return the best of a number of allocations, all with the same size-weighted mean.

    Uniform comes first. Then up to half of the evaluations are probes: each gives a tenth of its weights back to one
    run of adjacent blocks, and what that gains says what they are worth. Where damage grows exponentially with the
    sparsity, s_l = c - ln(worth_l) / growth is best; some rates of growth are tried. The rest are level switches of
    the best one so far; a switch that is not better is tried the other way round before another one is drawn.

    Args:
        fitness: what is minimised; called once for each list of sparsities.
        target: the size-weighted mean of every candidate; that of a probe is lower, and it is never returned.
        sizes: number of weights in each block; blocks of size 0 take no part.
        evaluations: how many lists are evaluated, at most.
        seed: seed of the switches.

    Example:
        >>> def damage(sparsities): return float((torch.tensor([4.0, 1.0]) * (10 * sparsities).exp()).sum())
        >>> found = search_levels(damage, 0.5, torch.ones(2), evaluations=5, seed=0)
        >>> found.sparsities.round(decimals=2).tolist()
        [0.43, 0.57]
    """
    start = shift_to_target(torch.full(sizes.shape, target).double(), target, sizes)
    climb = _Climb(fitness, evaluations, best=start, lowest=fitness(start))
    runs = block_runs(sizes, (evaluations - 1) // 2)
    if len(runs) > 1 and not _is_settled(start, sizes):
        worth = _probed(climb, runs, sizes)
        _spread(lambda growth: climb.improves(shift_to_target(target - worth.log() / growth, target, sizes)))
    for up, down, step in _switches(sizes, random.Random(seed)):
        if climb.left == 0:
            break
        before = climb.left
        if not climb.improves(switched(climb.best, sizes, up, down, step)):
            climb.improves(switched(climb.best, sizes, down, up, step))
        if climb.left == before and _is_settled(climb.best, sizes):
            break
    return Searched(climb.best, climb.lowest, climb.used)


@dataclass(slots=True)
class _Climb:
    """The best list so far, and how many were evaluated."""

    fitness: Fitness
    evaluations: int
    best: Tensor
    lowest: float
    used: int = 1

    @property
    def left(self) -> int:
        return self.evaluations - self.used

    def improves(self, candidate: Tensor) -> bool:
        """Evaluate a list, unless it is the best one or none is left, and keep it if it is better."""
        if self.left == 0 or torch.equal(candidate, self.best):
            return False
        found = self.fitness(candidate)
        self.used += 1
        is_better = found < self.lowest
        if is_better:
            self.best, self.lowest = candidate, found
        return is_better


def _probed(climb: _Climb, runs: Sequence[Sequence[int]], sizes: Tensor) -> Tensor:
    """Give each run of blocks some weights back in turn, and return what a weight of each block is worth."""
    gains = []
    for blocks in runs:
        probe = climb.best.clone()
        probe[blocks] = (probe[blocks] - PROBE).clamp(min=0.0)
        gains.append((climb.lowest - climb.fitness(probe)) / float(((climb.best - probe) * sizes).sum()))
    climb.used += len(runs)
    return worth_of_blocks(gains, runs, len(sizes))


def _spread(is_better_at: Callable[[float], bool]) -> None:
    """Try rates of growth as long as each is better than the one before, in one direction and then in the other."""
    first, *faster = FASTER
    better = [is_better_at(first)]
    for growth in faster:
        if any(better) and not better[-1]:
            break
        better.append(is_better_at(growth))
    if better[:2] == [True, False]:
        for growth in SLOWER:
            if not is_better_at(growth):
                break


def block_runs(sizes: Float[Tensor, " blocks"], count: int) -> list[list[int]]:
    """Divide the blocks that have weights into at most `count` runs; the first and the last block are on their own.

    A single run says nothing about where weights are worth most, so fewer than two are none.

    Example:
        >>> block_runs(torch.tensor([1.0, 1, 1, 0, 1, 1, 1]), 4)
        [[0], [1, 2], [4, 5], [6]]
    """
    blocks = [index for index, size in enumerate(sizes.tolist()) if size]
    if count < 2:
        return []
    if len(blocks) <= count:
        return [[index] for index in blocks]
    first, *middle, last = blocks
    parts = np.array_split(middle, count - 2) if count > 2 else []
    return [[first], *([int(index) for index in part] for part in parts), [last]]


def worth_of_blocks(gains: Sequence[float], runs: Sequence[Sequence[int]], blocks: int) -> Float[Tensor, " blocks"]:
    """Return what a weight of each block is worth, relative to the others, from what probes of runs gained.

    Logarithms are interpolated between the middles of runs. Where no probe gained anything, all are worth the same.

    Example:
        >>> worth_of_blocks([4.0, 1.0], [[0], [2]], 3).tolist()
        [4.0, 2.0, 1.0]
    """
    mean = max(0.0, sum(gains) / len(gains))
    if not mean or not math.isfinite(mean):
        return torch.ones(blocks, dtype=torch.float64)
    logs = [math.log(max(gain, LEAST_WORTH * mean)) for gain in gains]
    middles = [sum(run) / len(run) for run in runs]
    return torch.from_numpy(np.exp(np.interp(range(blocks), middles, logs)))


def switched(
    sparsities: Float[Tensor, " blocks"],
    sizes: Float[Tensor, " blocks"],
    up: Sequence[int],
    down: Sequence[int],
    step: float,
) -> Float[Tensor, " blocks"]:
    """Raise the sparsity of some blocks and lower that of as many others, so that as many weights stay.

    A pair of blocks moves by `step` times the size of the smaller one, less where a block would leave [0, 0.99].

    Example:
        >>> switched(torch.tensor([0.5, 0.5]).double(), torch.tensor([1.0, 2.0]), [1], [0], 0.25).tolist()
        [0.25, 0.625]
    """
    moved = sparsities.clone()
    for high, low in zip(up, down, strict=True):
        room = min((HIGHEST - float(moved[high])) * float(sizes[high]), float(moved[low]) * float(sizes[low]))
        weights = max(0.0, min(step * float(min(sizes[high], sizes[low])), room))
        moved[high] += weights / sizes[high]
        moved[low] -= weights / sizes[low]
    return moved.clamp(0.0, HIGHEST)


def _switches(sizes: Tensor, rng: random.Random) -> Iterator[tuple[list[int], list[int], float]]:
    """Yield blocks to raise, as many to lower, and a step: few pairs more often than many, without end."""
    blocks = [index for index, size in enumerate(sizes.tolist()) if size]
    most = len(blocks) // 2
    while most:
        pairs = min(rng.randint(1, most), rng.randint(1, most))
        drawn = rng.sample(blocks, 2 * pairs)
        yield drawn[:pairs], drawn[pairs:], rng.choice(STEPS)


def _is_settled(sparsities: Tensor, sizes: Tensor) -> bool:
    """Whether no switch changes anything, as where nothing is pruned."""
    inside = sparsities[sizes > 0]
    return bool((inside <= 0).all() or (inside >= HIGHEST).all())
