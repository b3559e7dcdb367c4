"""Level switches: one block gets as many weights back as another one loses, and a candidate that is better stays."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.pruning.allocations.target import HIGHEST, shift_to_target

# Maps the sparsities of the blocks to a number; lower is better.
Fitness: TypeAlias = Callable[[Float[Tensor, " blocks"]], float]

# Difference of sparsity between the last and the first block of the progressions that are tried, in this order; a
# direction ends with the first that is not better.
SPREADS = (0.2, 0.4, 0.6)
# How far a switch moves the smaller of its two blocks.
STEPS = (0.025, 0.05, 0.1)


class Searched(NamedTuple):
    """The best candidate, with its fitness and the number of candidates that were evaluated."""

    sparsities: Float[Tensor, " blocks"]
    fitness: float
    evaluations: int


def search_levels(
    fitness: Fitness, target: float, sizes: Float[Tensor, " blocks"], *, evaluations: int, seed: int
) -> Searched:
    """Return the best of a number of allocations, all with the same size-weighted mean.

    Uniform comes first, then arithmetic progressions, then level switches of the best one so far. A switch that is not
    better is tried the other way round before another one is drawn.

    Args:
        fitness: what is minimised; called once for each candidate.
        target: the size-weighted mean of every candidate.
        sizes: number of weights in each block; blocks of size 0 take no part.
        evaluations: how many candidates are evaluated, at most.
        seed: seed of the switches.

    Example:
        >>> wanted = torch.tensor([0.3, 0.5, 0.7]).double()
        >>> found = search_levels(lambda s: float((s - wanted).abs().sum()), 0.5, torch.ones(3), evaluations=9, seed=0)
        >>> found.sparsities.round(decimals=2).tolist()
        [0.3, 0.5, 0.7]
    """
    best = shift_to_target(torch.full(sizes.shape, target).double(), target, sizes)
    lowest, used = fitness(best), 1

    def improves(candidate: Tensor) -> bool:
        nonlocal best, lowest, used
        if used == evaluations or torch.equal(candidate, best):
            return False
        found, used = fitness(candidate), used + 1
        if found < lowest:
            best, lowest = candidate, found
            return True
        return False

    depth = torch.linspace(-0.5, 0.5, len(sizes), dtype=torch.float64)
    for sign in (1, -1):
        rises = [improves(shift_to_target(target + sign * SPREADS[0] * depth, target, sizes))]
        for spread in SPREADS[1:]:
            if rises[-1]:
                rises.append(improves(shift_to_target(target + sign * spread * depth, target, sizes)))
        if rises[0]:
            break
    for up, down, step in _switches(sizes, random.Random(seed)):
        if used == evaluations:
            break
        before = used
        if not improves(switched(best, sizes, up, down, step)):
            improves(switched(best, sizes, down, up, step))
        if used == before and _is_settled(best, sizes):
            break
    return Searched(best, lowest, used)


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
