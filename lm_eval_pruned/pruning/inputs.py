"""Statistics of the inputs of many Linears, in which those fed the very same tensor share one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from torch import Tensor

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.blocks import Linear
from lm_eval_pruned.pruning.stats import Statistic

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
