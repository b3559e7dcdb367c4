"""What a calibration pass has seen of the inputs of a Linear, streamed window by window."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.errors import PruningError

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
