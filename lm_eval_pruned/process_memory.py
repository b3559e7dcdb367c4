"""Process memory: huge pages, expandable segments, `malloc_trim`, and advice for out-of-memory errors."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lm_eval_pruned.errors import PruningError

# What allocators and libraries say when a device is full: PyTorch's own, CUDA's and HIP's drivers, Triton and XPU, the
# handles and workspaces of cuBLAS, cuSOLVER, cuSPARSE and cuDNN, and the allocator of the CPU.
_OUT_OF_MEMORY = re.compile(
    r"out[ _]of[ _]((device|host)[ _])?memory|_STATUS_ALLOC_FAILED|(CUBLAS|CUSOLVER)_STATUS_NOT_INITIALIZED"
    r"|can't allocate memory|PT_DEVMEM Allocation failed",
    re.IGNORECASE,
)


def use_huge_pages() -> None:
    """Let PyTorch allocate memory in transparent huge pages of 2 MiB: new tensors are filled three times as fast.

    Has an effect only before the first large tensor of the process, when PyTorch reads the environment.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def use_expandable_segments() -> None:
    """Let PyTorch's CUDA allocator extend its segments: a KV cache that has grown does not fit those of a smaller one.

    Has an effect only before CUDA starts, and none if the environment configures the allocator already.
    """
    names = "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"
    if not any(name in os.environ for name in names):
        # Older releases do not know the new name, or ignore it (2.9: pytorch/pytorch#183387).
        os.environ[names[torch.__version__ < "2.11"]] = "expandable_segments:True"


def trim_heap() -> None:
    """Return freed memory to the system; without it, fragments add a hundred megabytes to the peak of pruning.

    Does nothing if the C library is not glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the memory of a device or of the host ran out.

    accelerate's `should_reduce_batch_size` knows the message of PyTorch's caching allocator alone. A full device shows
    itself also when a library creates its handle or workspace, or when the driver fails.

    Example:
        >>> is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
        True
        >>> is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
        False
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(str(error)))


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Turn an out-of-memory error in a `with` block that prunes into advice.

    Raises:
        PruningError: memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise PruningError(
            f"memory ran out while the model was pruned ({reason}): give a smaller calib_seqlen, fewer calib_samples, "
            "a smaller dtype or a device with more memory; lm-eval-pruned plan says what is needed"
        ) from error
