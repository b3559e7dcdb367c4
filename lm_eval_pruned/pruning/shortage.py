"""Shortage: memory that runs out while a model is pruned; windows go one at a time, so there is no batch to halve."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from accelerate.utils.memory import should_reduce_batch_size

from lm_eval_pruned.errors import PruningError


@contextmanager
def naming_shortage() -> Iterator[None]:
    """Say what to do where memory runs out in the `with` block.

    Raises:
        PruningError: it has.
    """
    try:
        yield
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        reason = str(error).partition("\n")[0]
        raise PruningError(
            f"memory ran out while the model was pruned ({reason}): give a smaller calib_seqlen, fewer calib_samples, "
            "a smaller dtype or a device with more memory; lm-eval-pruned plan says what is needed"
        ) from error
