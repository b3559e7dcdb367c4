"""Calibration windows of which only some tokens count, such as those that a model wrote after a prompt.

All tokens pass through the model, as context of the others. Statistics, losses and divergences are of those that count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from jaxtyping import Bool, Int
from torch import Tensor

from lm_eval_pruned.errors import PruningError


@dataclass(frozen=True, slots=True)
class CountedWindows(Sequence[Tensor]):
    """Windows of token ids, and which of their tokens count; slices are such windows again.

    Example:
        >>> import torch
        >>> windows = CountedWindows(torch.tensor([[5, 6], [7, 8]]), torch.tensor([[False, True], [True, True]]))
        >>> [window.tolist() for window in windows[1:]], windows[1:].counted.tolist()
        ([[7, 8]], [[True, True]])
    """

    ids: Int[Tensor, "samples seqlen"]
    counted: Bool[Tensor, "samples seqlen"]

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> CountedWindows: ...

    def __getitem__(self, index: int | slice) -> Tensor | CountedWindows:
        """Return the token ids of a window, or some windows."""
        if isinstance(index, slice):
            return CountedWindows(self.ids[index], self.counted[index])
        return self.ids[index]


def counted_tokens(windows: Tensor | Sequence[Tensor]) -> Sequence[Tensor | None]:
    """Return for each window which of its tokens count [seqlen]; None where all do."""
    return list(windows.counted) if isinstance(windows, CountedWindows) else [None] * len(windows)


def select_counted(tensor: Tensor, counted: Tensor | None, name: str) -> Tensor:
    """Return the rows [... counted features] of the tokens that count, out of [... tokens features].

    Args:
        tensor: a row for each token of a window.
        counted: which tokens count [tokens]; None takes all.
        name: what the tensor is of, for the error.

    Raises:
        PruningError: the rows are not one for each token.
    """
    if counted is None:
        return tensor
    if tensor.ndim < 2 or tensor.shape[-2] != len(counted):
        raise PruningError(
            f"{name} has {list(tensor.shape)} in a window of {len(counted)} tokens, and not one row for each: use "
            "calib_tokens=all"
        )
    return tensor[..., counted.to(tensor.device), :]
