"""Settings of PyTorch under which the same inputs give the same masks, bit for bit, on the same kind of device."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch.utils import deterministic

Value = TypeVar("Value")

# Since PyTorch 2.9 each of these has a `fp32_precision`, beside the older settings of all matrix products and of all of
# cuDNN. An older one is set along with its newer ones, but cannot be read once a newer one differs from it.
_NEWER = (("cuda", "matmul"), ("mkldnn", "matmul"), ("cudnn", "conv"), ("cudnn", "rnn"))


@contextmanager
def reproducible(*, strict: bool = False) -> Iterator[None]:
    """Use deterministic algorithms and full float32 precision for a `with` block.

    On CUDA, the outputs of experts and the gradients of attention are otherwise summed by atomic additions, in an order
    that varies, and float32 products are computed in TF32 where a library or the environment of a container says so.

    Args:
        strict: raise a RuntimeError for an operator that has no deterministic algorithm. Only then does the backward
            pass of flash and memory-efficient attention use one.

    Reference: https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    # A module that defines its attributes at run time.
    memory: Any = deterministic
    benchmark, fills = torch.backends.cudnn.benchmark, memory.fill_uninitialized_memory
    # PyTorch refuses products in strict mode without it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    torch.backends.cudnn.benchmark = False
    # Every element of what `torch.empty` returns is written here.
    memory.fill_uninitialized_memory = False
    try:
        with warnings.catch_warnings():
            # PyTorch tells of operators without a deterministic algorithm, and that there are newer names of settings.
            warnings.filterwarnings("ignore", message=r"(?s).*(determinis|TF32 behavior)")
            with _full_float32():
                yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
        memory.fill_uninitialized_memory = fills


def lacks_deterministic_algorithm(error: BaseException | None) -> bool:
    """Return whether an error is that of an operator which has no deterministic algorithm.

    Example:
        >>> lacks_deterministic_algorithm(RuntimeError("put_ does not have a deterministic implementation, but"))
        True
    """
    return isinstance(error, RuntimeError) and "determinis" in str(error).lower()


@contextmanager
def _full_float32() -> Iterator[None]:
    """Compute float32 products and convolutions in float32, not in TF32 or bfloat16, for a `with` block."""
    places: list[Any] = [getattr(getattr(torch.backends, library), kind, None) for library, kind in _NEWER]
    newer = {place: place.fp32_precision for place in places if hasattr(place, "fp32_precision")}
    products = _read(torch.get_float32_matmul_precision, "highest")
    convolutions = _read(lambda: torch.backends.cudnn.allow_tf32, True)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    for place in newer:
        place.fp32_precision = "ieee"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
        for place, precision in newer.items():
            place.fp32_precision = precision


def _read(setting: Callable[[], Value], default: Value) -> Value:
    """Read an older setting of precision, or return its default where a newer one overrules it."""
    try:
        return setting()
    except RuntimeError:
        return default
