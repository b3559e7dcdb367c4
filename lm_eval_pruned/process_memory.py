"""Process memory: transparent huge pages, `malloc_trim`, and advice when memory runs out during pruning."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from accelerate.utils.memory import should_reduce_batch_size

from lm_eval_pruned.errors import PruningError


def use_large_pages() -> None:
    """Let PyTorch allocate in 2 MiB pages where Linux has them, which fills new tensors three times as fast.

    Call it before the process makes its first large tensor, since PyTorch reads the environment only then.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def give_back() -> None:
    """Return freed memory to the system with `malloc_trim`; does nothing where the C library is not glibc.

    Without it, fragments of the heap raise the peak of block-wise pruning by about a hundred megabytes.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


@contextmanager
def naming_shortage() -> Iterator[None]:
    """Turn an out-of-memory error in the `with` block into one that says what to lower.

    Raises:
        PruningError: memory ran out.
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
