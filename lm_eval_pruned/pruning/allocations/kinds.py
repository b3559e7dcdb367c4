"""What an allocation is, and the registry they enter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.registry import Registry

Signal = Literal["none"]


@runtime_checkable
class Allocate(Protocol):
    """A pure function from a signal and the sizes of the blocks to one sparsity a block, whose mean is the target."""

    def __call__(
        self, signal: Float[Tensor, " blocks"], target: float, sizes: Float[Tensor, " blocks"]
    ) -> Float[Tensor, " blocks"]:
        """Sparsities [blocks] from a signal [blocks], the target and the number of weights [blocks]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """An allocation function with the signal it reads."""

    summary: str
    allocate: Allocate
    signal: Signal


ALLOCATIONS: Registry[Allocation] = Registry("alloc")


def allocation(name: str, *, signal: Signal) -> Callable[[Allocate], Allocate]:
    """Register an allocation function; the first line of its docstring becomes its summary."""

    def enter(allocate: Allocate) -> Allocate:
        summary = (allocate.__doc__ or "").strip().splitlines()[0]
        ALLOCATIONS.add(name, Allocation(summary=summary, allocate=allocate, signal=signal))
        return allocate

    return enter
