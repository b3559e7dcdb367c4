"""A `with` block in which CUDA devices exist: factories, `to`, generators and `torch.cuda` work on pretend ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.gpu_rehearsal import rules
from tests.gpu_rehearsal.counts import Counts, Current
from tests.gpu_rehearsal.placing import place_module
from tests.gpu_rehearsal.tensor import (
    RUNNING,
    PretendTensor,
    any_tensor,
    arguments_of_to,
    bare,
    device_of,
    moved,
    placed,
)

_Generator = torch.Generator


class PretendGenerator(_Generator):
    """A generator of the CPU that says on which device it is."""

    def __new__(cls, device: torch.device | str = "cpu") -> PretendGenerator:
        made: PretendGenerator = _Generator.__new__(cls, device="cpu")
        made.place = device_of(device)  # type: ignore[attr-defined]
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.place  # type: ignore[attr-defined, no-any-return]


class _MadeInside(TorchDispatchMode):
    """What an operator makes from nothing is on the device of the operator."""

    def __torch_dispatch__(self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        # An operator called by C++ code: a device among its arguments was not asked for by Python code.
        with torch._C.DisableTorchFunction():
            result = func(*args, **(kwargs or {}))
        place = RUNNING.devices[-1]
        if place is None or isinstance(result, PretendTensor):
            return result
        return result if any_tensor((args, kwargs), Tensor) else placed(result, place)


class _AskedFor(TorchFunctionMode):
    """What Python code asks for on CUDA is made on a pretend device."""

    def __torch_function__(self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.backward and isinstance(args[0], PretendTensor):
            return self._backward(args[0], args[1] if len(args) > 1 else kwargs.get("gradient"))
        if func is torch.Tensor.to:
            return moved(*arguments_of_to(args, kwargs))
        if func is torch.Tensor.cuda:
            return moved(*arguments_of_to((args[0], *(args[1:] or ("cuda",))), kwargs))
        if any_tensor((args, kwargs), PretendTensor):
            return func(*args, **kwargs)
        device = kwargs.get("device")
        on_device = device is not None and device_of(device).type == "cuda"
        if on_device:
            rules.check_generators(kwargs.values(), "cuda")
            kwargs["device"] = "cpu"
        # Also in a hook that runs inside an operator.
        RUNNING.devices.append(None)
        try:
            made = func(*args, **kwargs)
        finally:
            RUNNING.devices.pop()
        return self._put(made, func, device) if on_device and isinstance(made, Tensor) else made

    def _put(self, made: Tensor, func: Callable[..., Any], device: torch.device | str | int) -> Tensor:
        if func in (torch.tensor, torch.as_tensor, torch.asarray):
            needs_gradient = made.requires_grad
            return moved(made.detach(), device_of(device), made.dtype).requires_grad_(needs_gradient)
        Current.counts.launches[func.__name__] += 1
        Current.counts.moved_bytes += made.nbytes
        put: Tensor = placed(made.detach(), device)
        return put.requires_grad_(made.requires_grad)

    def _backward(self, loss: PretendTensor, gradient: torch.Tensor | None) -> None:
        """Run a backward pass in which hooks written in Python see this mode."""
        RUNNING.devices.append(loss.place)
        try:
            first = placed(torch.ones_like(bare(loss)), loss.place) if gradient is None else gradient
            with self:
                torch.autograd.Variable._execution_engine.run_backward(  # type: ignore[attr-defined]
                    (loss,), (first,), False, False, (), allow_unreachable=True, accumulate_grad=True
                )
        finally:
            RUNNING.devices.pop()


@contextmanager
def pretend_cuda(*, devices: int = 2, free: int = 60 << 30, total: int = 80 << 30) -> Iterator[Counts]:
    """Let CUDA devices exist for a `with` block, and count what they do.

    Args:
        devices: number of devices.
        free: free bytes of each, as `torch.cuda.mem_get_info` tells.
        total: its memory, in bytes.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Current, "counts", Counts())
        patch.setattr(torch, "Generator", PretendGenerator)
        told = {
            "is_available": True, "device_count": devices, "mem_get_info": (free, total), "memory_reserved": 0,
            "memory_allocated": 0, "max_memory_allocated": 0, "empty_cache": None, "current_device": 0,
            "synchronize": None, "get_device_capability": (9, 0), "get_device_name": "pretend",
        }  # fmt: skip
        for name, value in told.items():
            patch.setattr(torch.cuda, name, lambda *_, value=value, **__: value)
        _patch_modules(patch)
        _patch_threads(patch)
        with _MadeInside(), _AskedFor():
            yield Current.counts


def _patch_modules(patch: pytest.MonkeyPatch) -> None:
    to = nn.Module.to

    def put(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        device = kwargs.get("device", args[0] if args else None)
        if isinstance(device, str | int | torch.device) and device_of(device).type == "cuda":
            return place_module(module, lambda name: device_of(device))
        return to(module, *args, **kwargs)

    patch.setattr(nn.Module, "to", put)


def _patch_threads(patch: pytest.MonkeyPatch) -> None:
    """Let the threads of a pool see the modes, which belong to a thread."""
    submit = ThreadPoolExecutor.submit

    def within(pool: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        def run() -> Any:
            with _MadeInside(), _AskedFor():
                return function(*args, **kwargs)

        return submit(pool, run)

    patch.setattr(ThreadPoolExecutor, "submit", within)
