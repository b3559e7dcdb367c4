"""Listed allocation: a `.json` file with one sparsity per block."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.errors import ArgumentError, DataError, MissingDataError
from lm_eval_pruned.files import NOT_JSON
from lm_eval_pruned.pruning.allocations.kinds import Allocation
from lm_eval_pruned.pruning.allocations.signals.constant import CONSTANT

# A list written with three decimals can miss the target by this much.
TOLERANCE = 1e-3


def listed(path: str) -> Allocation:
    """Return the allocation that a `.json` file lists, one sparsity per block.

    Raises:
        MissingDataError: there is no such file.
        DataError: it is not a list of numbers from 0 up to, but not including, 1.
    """
    try:
        values = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingDataError(f"alloc={path} does not exist: give a .json list of one sparsity a block") from None
    except OSError as error:
        raise DataError(f"alloc={path} cannot be read: {error.strerror}") from None
    except NOT_JSON as error:
        raise DataError(f"alloc={path} is not JSON: {error}") from None
    if not isinstance(values, list) or not all(_is_sparsity(value) for value in values):
        raise DataError(f"alloc={path} must be a list of one sparsity a block, each 0 <= s < 1, such as [0.1, 0.3]")

    def allocate(
        signal: Float[Tensor, " blocks"], target: float, sizes: Float[Tensor, " blocks"]
    ) -> Float[Tensor, " blocks"]:
        del signal
        if len(values) != len(sizes):
            raise ArgumentError(f"alloc={path} lists {len(values)} sparsities, but the model has {len(sizes)} blocks")
        sparsities = torch.tensor(values, dtype=torch.float64)
        mean = float((sparsities * sizes).sum() / sizes.sum())
        if target and abs(mean - target) > TOLERANCE:
            raise ArgumentError(f"alloc={path} has a mean of {mean:.4f}, not sparsity={target}: leave sparsity out")
        return sparsities

    return Allocation(
        summary="One sparsity a block, as listed.",
        allocate=allocate,
        signal=CONSTANT,
        settings=(),
        listed=tuple(float(value) for value in values),
    )


def _is_sparsity(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
