"""The `Allocate` function type, what an allocation declares, and the registry of allocations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.config import ALLOCATIONS_GROUP, PruneConfig, field_names
from lm_eval_pruned.pruning.allocations.signals.kinds import Signal
from lm_eval_pruned.registry import Registry, source_digest, summary_of


@runtime_checkable
class Allocate(Protocol):
    """A pure function from a signal to one sparsity per block, whose size-weighted mean is the target.

    It may take model arguments by keyword, with defaults; `Allocation.settings` names them.
    """

    def __call__(
        self, signal: Float[Tensor, " blocks"], target: float, sizes: Float[Tensor, " blocks"]
    ) -> Float[Tensor, " blocks"]:
        """Sparsities [blocks] in float64, each from 0 to 0.99.

        Args:
            signal: what the allocation reads of the dense model; zeros where it reads nothing.
            target: the mean sparsity, 0 <= target < 1.
            sizes: number of weights in each block.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """An allocation function with what it reads.

    Attributes:
        summary: one line for `lm-eval-pruned list`.
        allocate: the allocation function.
        signal: what it reads of the dense model.
        settings: names of the model arguments that it takes by keyword.
        split_by: name of the model argument that says whether attention and MLP are allocated apart ("module") or
            together; None where a block always has one sparsity.
        listed: the sparsities that a file gave, which the name of the file does not determine.
        source: digest of the package that defines it, see `registry.source_digest`.
    """

    summary: str
    allocate: Allocate
    signal: Signal
    settings: tuple[str, ...]
    split_by: str | None = None
    listed: tuple[float, ...] = ()
    source: str | None = ""

    def with_settings(self, config: PruneConfig) -> Allocate:
        """Return the function with the model arguments that it declares bound to their values in `config`."""
        return partial(self.allocate, **{name: getattr(config, name) for name in self.settings})


ALLOCATIONS: Registry[Allocation] = Registry("alloc", group=ALLOCATIONS_GROUP)

Registered = TypeVar("Registered", bound=Allocate)


def allocation(
    name: str, *, signal: Signal, settings: tuple[str, ...] = (), split_by: str | None = None
) -> Callable[[Registered], Registered]:
    """Register an allocation function; the first line of its docstring becomes its summary.

    Args:
        name: value of the argument `alloc`.
        signal: what the function reads of the dense model.
        settings: names of the model arguments that it takes by keyword.
        split_by: name of the model argument that says whether attention and MLP are allocated apart.

    Raises:
        ValueError: there is no such model argument, or the function has no docstring.
    """
    unknown = {*settings, *([split_by] if split_by else [])} - field_names(PruneConfig)
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: no such model argument that allocation {name!r} could take")

    def register(allocate: Registered) -> Registered:
        ALLOCATIONS.add(
            name,
            Allocation(
                summary=summary_of(allocate),
                allocate=allocate,
                signal=signal,
                settings=settings,
                split_by=split_by,
                source=source_digest(allocate),
            ),
        )
        return allocate

    return register
