"""What an allocation is, and the registry they enter.

An allocation is a pure function `(signal [blocks], target, sizes [blocks]) -> sparsities [blocks]`, whose size-weighted
mean is the target; it may take model arguments of its own by keyword. `signal` is what it reads of the dense model,
zeros where it reads nothing, and `sizes` the number of weights of each block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from torch import Tensor

from lm_eval_pruned.registry import Registry

Signal = Literal["none", "outlier_ratio", "median_score", "tail_exponent", "influence"]

Allocate = TypeVar("Allocate", bound=Callable[..., Tensor])


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """An allocation function with the signal it reads and the names of the model arguments it takes by keyword.

    `groups` names the model argument that says whether attention and MLP are allocated apart; without one, a block has
    one sparsity. `listed` are the sparsities that a file gave, since the file's name alone does not determine them.
    """

    summary: str
    allocate: Callable[..., Tensor]
    signal: Signal
    settings: tuple[str, ...]
    groups: str | None = None
    listed: tuple[float, ...] = ()


ALLOCATIONS: Registry[Allocation] = Registry("alloc")


def allocation(
    name: str, *, signal: Signal, settings: tuple[str, ...] = (), groups: str | None = None
) -> Callable[[Allocate], Allocate]:
    """Register an allocation function; the first line of its docstring becomes its summary."""

    def enter(allocate: Allocate) -> Allocate:
        summary = (allocate.__doc__ or "").strip().splitlines()[0]
        ALLOCATIONS.add(
            name, Allocation(summary=summary, allocate=allocate, signal=signal, settings=settings, groups=groups)
        )
        return allocate

    return enter
