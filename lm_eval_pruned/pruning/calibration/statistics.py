"""What a calibration pass has seen of the inputs of a Linear, streamed window by window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.model.decoder import Linear

Result_co = TypeVar("Result_co", covariant=True)


class Statistic(Protocol[Result_co]):
    """Streams over the inputs of a Linear and ends in a frozen result."""

    def update(self, inputs: Float[Tensor, "*batch tokens in"]) -> None:
        """Add the inputs of one window."""

    def result(self) -> Result_co:
        """Return what was seen so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputStatistics:
    """Frozen result: the Euclidean norm of every input feature over all calibration tokens."""

    norm: Float[Tensor, " in"]


@dataclass(slots=True)
class InputNorm:
    """Running sum of squared inputs, in float32 whatever the dtype of the activations.

    Example:
        >>> statistics = InputNorm()
        >>> statistics.update(torch.tensor([[3.0, 0.0], [4.0, 1.0]]))
        >>> statistics.result().norm.tolist()
        [5.0, 1.0]
    """

    _total: Tensor | None = field(default=None)

    def update(self, inputs: Float[Tensor, "*batch tokens in"]) -> None:
        """Add the inputs of one window."""
        squares = inputs.float().square().flatten(0, -2).sum(dim=0)
        self._total = squares if self._total is None else self._total + squares

    def result(self) -> InputStatistics:
        """Return the norms seen so far.

        Raises:
            RuntimeError: no window was added.
            PruningError: an input is not finite.
        """
        return InputStatistics(norm=torch.sqrt(_seen(self._total)))


@dataclass(slots=True)
class InputGram:
    """Running gram matrix of the inputs, in float32 whatever the dtype of the activations.

    Example:
        >>> statistics = InputGram()
        >>> statistics.update(torch.tensor([[3.0, 0.0], [4.0, 1.0]]))
        >>> statistics.result().tolist()
        [[25.0, 4.0], [4.0, 1.0]]
    """

    _total: Tensor | None = field(default=None)

    def update(self, inputs: Float[Tensor, "*batch tokens in"]) -> None:
        """Add the inputs of one window."""
        rows = inputs.float().flatten(0, -2)
        if self._total is None:
            self._total = rows.T @ rows
        else:
            self._total.addmm_(rows.T, rows)

    def result(self) -> Float[Tensor, "in in"]:
        """Return the sum of x x^T over the tokens seen so far.

        Raises:
            RuntimeError: no window was added.
            PruningError: an input is not finite.
        """
        return _seen(self._total)


def _seen(total: Tensor | None) -> Tensor:
    if total is None:
        raise RuntimeError("no calibration window was added to these statistics")
    if not total.isfinite().all():
        raise PruningError("overflow or are not numbers: load in float32 or bfloat16")
    return total


Result = TypeVar("Result")


class SharedInputs(Generic[Result]):
    """Collects window by window; who shares an input with whom is found out in the first window that calls a Linear."""

    def __init__(self, linears: Sequence[Linear], collect: Callable[[], Statistic[Result]]) -> None:
        self._linears, self._collect = linears, collect
        self._leaders: dict[str, str] = {}
        self._statistics: dict[str, Statistic[Result]] = {}
        # Held for the length of a window, so that no tensor of it can take the memory and identity of another.
        self._fed: list[tuple[Tensor, str]] = []
        self._first_window = True
        self._last = ""

    def see(self, names: Sequence[str], inputs: Tensor) -> None:
        """Add `inputs` to the statistic of the Linears `names`, once if several of them are fed it in turn."""
        first = names[0]
        if first not in self._leaders:
            leader = next((known for tensor, known in self._fed if tensor is inputs), first)
            self._leaders.update(dict.fromkeys(names, leader))
        if self._leaders[first] != first:
            return
        self._fed.append((inputs, first))
        self._statistics.setdefault(first, self._collect()).update(inputs)
        if self._first_window:
            self._last = names[-1]

    def next_window(self) -> None:
        """Close a window."""
        self._fed.clear()
        self._first_window = False

    def is_last(self, name: str) -> bool:
        """Whether nothing behind `name` is wanted of this window; unknown in the first one, and among experts."""
        routed = any(linear.routed for linear in self._linears)
        return not self._first_window and not routed and name == self._last

    def results(self) -> dict[str, Result]:
        """Return the result of every Linear that saw an input; experts that no token reached have none.

        Raises:
            PruningError: a Linear that is no expert, or every expert, is never called, or inputs are not finite.
        """
        some_expert = any(linear.routed and linear.name in self._leaders for linear in self._linears)
        for linear in self._linears:
            if linear.name not in self._leaders and not (linear.routed and some_expert):
                raise PruningError(
                    f"{linear.name} is never called in the forward pass of its block: it cannot be calibrated"
                )
        results = {}
        for name, statistic in self._statistics.items():
            try:
                results[name] = statistic.result()
            except PruningError as error:
                raise PruningError(f"the inputs of {name} {error}") from None
        return {name: results[leader] for name, leader in self._leaders.items()}
