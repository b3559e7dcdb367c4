"""What a calibration pass has seen of the inputs of a Linear, streamed window by window."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor


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
        """
        if self._total is None:
            raise RuntimeError("no calibration window was added to these statistics")
        return InputStatistics(norm=torch.sqrt(self._total))
