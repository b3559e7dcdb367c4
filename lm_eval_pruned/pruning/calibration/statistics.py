"""Streaming statistics of the inputs of Linears: norms for Wanda, Gram matrices for SparseGPT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.calibration.counted import select_counted
from lm_eval_pruned.pruning.model.decoder import Linear
from lm_eval_pruned.pruning.products import float32_product

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Statistic(Protocol[Result_co]):
    """Accumulates the inputs of a Linear window by window."""

    def update(self, inputs: Float[Tensor, "*batch tokens in"]) -> None:
        """Add the inputs of one window."""

    def result(self) -> Result_co:
        """Return the statistic of all inputs so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputStatistics:
    """The Euclidean norm of every input feature over all calibration tokens."""

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
        """Return the norms of all inputs so far.

        Raises:
            RuntimeError: no window was added.
            PruningError: an input is not finite.
        """
        return InputStatistics(norm=torch.sqrt(_checked(self._total)))


@dataclass(slots=True)
class InputGram:
    """Running Gram matrix of the inputs, in float32 whatever the dtype of the activations.

    Example:
        >>> statistics = InputGram()
        >>> statistics.update(torch.tensor([[3.0, 0.0], [4.0, 1.0]]))
        >>> statistics.result().tolist()
        [[25.0, 4.0], [4.0, 1.0]]
    """

    _total: Tensor | None = field(default=None)

    def update(self, inputs: Float[Tensor, "*batch tokens in"]) -> None:
        """Add the inputs of one window."""
        rows = inputs.flatten(0, -2)
        self._total = float32_product(rows.T, rows, added_to=self._total)

    def result(self) -> Float[Tensor, "in in"]:
        """Return the sum of x x^T over all tokens so far.

        Raises:
            RuntimeError: no window was added.
            PruningError: an input is not finite.
        """
        return _checked(self._total)


class SharedInputs(Generic[Result]):
    """Statistics of the inputs of many Linears, where Linears that are fed the same tensor share one.

    Which Linears share an input (q, k, v; gate, up) is learned in the first window that calls them. With `share=False`
    none do: of Linears that are called several times in a pass, later inputs may differ where the first were the same.
    """

    def __init__(
        self, linears: Sequence[Linear], collect: Callable[[], Statistic[Result]], *, share: bool = True
    ) -> None:
        self._linears, self._collect, self._share = linears, collect, share
        self._leaders: dict[str, str] = {}
        self._statistics: dict[str, Statistic[Result]] = {}
        # Held until the window ends, so that no new tensor can reuse the memory and the identity of an earlier one.
        self._inputs: list[tuple[Tensor, str]] = []
        self._first_window = True
        self._last = ""

    def update(self, names: Sequence[str], inputs: Tensor, counted: Tensor | None = None) -> None:
        """Add `inputs` to the statistic of the Linears `names`, once if several of them are fed the same tensor.

        Args:
            names: the Linears.
            inputs: their inputs.
            counted: which rows of the inputs count [tokens]; None adds all.

        Raises:
            PruningError: rows are to be left out, and the inputs are not one row for each token.
        """
        first = names[0]
        if first not in self._leaders:
            held = self._inputs if self._share else []
            leader = next((known for tensor, known in held if tensor is inputs), first)
            self._leaders.update(dict.fromkeys(names, leader))
        if self._leaders[first] != first:
            return
        if self._share:
            self._inputs.append((inputs, first))
        rows = select_counted(inputs, counted, f"the input of {first}")
        self._statistics.setdefault(first, self._collect()).update(rows)
        if self._first_window:
            self._last = names[-1]

    def next_window(self) -> None:
        """End a window."""
        self._inputs.clear()
        self._first_window = False

    def is_last(self, name: str) -> bool:
        """Whether `name` is the last Linear whose input is needed; known after the first window, never with experts."""
        routed = any(linear.routed for linear in self._linears)
        return not self._first_window and not routed and name == self._last

    def results(self) -> dict[str, Result]:
        """Return the result of every Linear that was called; experts that no token was routed to have none.

        Raises:
            PruningError: a Linear that is not an expert, or every expert, is never called, or inputs are not finite.
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


def _checked(total: Tensor | None) -> Tensor:
    if total is None:
        raise RuntimeError("no calibration window was added to these statistics")
    if not total.isfinite().all():
        raise PruningError("overflow or are not numbers: load in float32 or bfloat16, or check the checkpoint")
    return total
