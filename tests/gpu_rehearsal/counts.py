"""Counters of a pretend CUDA device: kernel launches, synchronisations, bytes, and sums in an order that varies."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counts:
    """What a pretend CUDA device was asked to do.

    Attributes:
        launches: kernels, by operator.
        synchronisations: times that the host waited for the device, by reason.
        unordered: floating-point sums whose order of addition, and so whose last bits, differ between runs on CUDA.
        reduced: products of float32 matrices that CUDA would compute in TF32.
        moved_bytes: bytes that kernels read and wrote.
        largest_bytes: bytes of the largest result of a kernel.
        copied_bytes: bytes copied between devices, by direction.
    """

    launches: Counter[str] = field(default_factory=Counter)
    synchronisations: Counter[str] = field(default_factory=Counter)
    unordered: Counter[str] = field(default_factory=Counter)
    reduced: Counter[str] = field(default_factory=Counter)
    copied_bytes: Counter[str] = field(default_factory=Counter)
    moved_bytes: int = 0
    largest_bytes: int = 0


class Current:
    """Counts of the pretend device in use, and what makes its memory run out.

    Attributes:
        counts: the counters.
        largest: bytes of the largest tensor that fits; None for no limit.
        full: the error of a kernel whose result does not fit.
    """

    counts = Counts()
    largest: int | None = None
    full: Exception = RuntimeError("CUDA error: out of memory")
