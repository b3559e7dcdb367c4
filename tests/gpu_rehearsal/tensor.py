"""A tensor on a pretend CUDA device: it keeps its numbers in CPU memory and obeys CUDA's rules."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing

from tests.gpu_rehearsal import rules
from tests.gpu_rehearsal.counts import Current

T = TypeVar("T", bound=Tensor)

CPU = torch.device("cpu")


class _Running(threading.local):
    """Devices of the operators that run at the moment, the innermost last; None where Python code runs inside one."""

    def __init__(self) -> None:
        self.devices: list[torch.device | None] = [None]


RUNNING = _Running()


class PretendTensor(torch.Tensor):
    """A tensor whose `device` is `cuda:N`.

    To PyTorch's C++ code it is a CPU tensor, because a build without CUDA has no autograd for CUDA's devices.
    """

    held: Tensor
    place: torch.device

    @staticmethod
    def __new__(cls, held: Tensor, place: torch.device) -> PretendTensor:
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "layout": held.layout}
        # A view of a parameter is no tensor of inference mode, but what is made there would be.
        with torch.inference_mode(False):
            made = torch.Tensor._make_wrapper_subclass(cls, held.size(), dtype=held.dtype, device=CPU, **layout)
        made.held, made.place = held.detach(), place
        return made

    def __repr__(self) -> str:
        return f"PretendTensor({self.held!r}, {self.place})"

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = dict(kwargs or {})
        if func in _ATTRIBUTES:
            return _ATTRIBUTES[func](*args)
        rules.check_generators((*args, *kwargs.values()), "cuda")
        if func in _MOVES:
            return moved(*_MOVES[func](args, kwargs))
        # What Python asks for; C++ code names the CPU where it means the device of an argument.
        wanted = kwargs.pop("device", None)
        first = tensors_in((args, kwargs), PretendTensor)[0]
        RUNNING.devices.append(first.place)
        try:
            with torch._C.DisableTorchFunctionSubclass():
                result = func(*args, **kwargs)
        finally:
            RUNNING.devices.pop()
        return result if wanted is None else placed(bare(result), wanted)

    @classmethod
    def __torch_dispatch__(
        cls,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        del types
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if func._can_decompose() and torch.is_inference_mode_enabled():
            # Elsewhere autograd does this: what an operator is made of meets the rules, and the host may wait in there.
            return func.decompose(*args, **kwargs)
        tensors = tensors_in((args, kwargs), Tensor)
        if name == "copy_":
            return _copied_into(args[0], args[1], waits=not (args[2] if len(args) > 2 else False))
        places = [one.place for one in tensors if isinstance(one, PretendTensor)]
        hosted = [one for one in tensors if not isinstance(one, PretendTensor) and one.device.type == "cpu"]
        rules.check_same_device(name, places, hosted, args[1] if len(args) > 1 else None)
        rules.check_kernel(func, tensors)
        rules.check_order(name, args)
        rules.check_precision(name, tensors)
        bare_args, bare_kwargs = mapped(bare, (args, kwargs))
        if name == "histc" and not bare_args[0].is_floating_point():
            # CUDA has a kernel for integers, and a CPU has none.
            result = func(bare_args[0].double(), *bare_args[1:], **bare_kwargs).to(bare_args[0].dtype)
        elif func in rules.FLOAT32_SUMS:
            result = rules.float32_sums(func, bare_args, bare_kwargs)
        else:
            result = func(*bare_args, **bare_kwargs)
        _count(name, args, [bare(one) for one in tensors], result)
        return return_and_correct_aliasing(func, args, kwargs, mapped(lambda leaf: placed(leaf, places[0]), result))


def tensors_in(value: object, kind: type[T]) -> list[T]:
    """Return the tensors of a class among the arguments or results of an operator, at any depth."""
    if isinstance(value, kind):
        return [value]
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return []
    return [found for one in value for found in tensors_in(one, kind)]


def any_tensor(value: object, kind: type[Tensor]) -> bool:
    """Return whether a tensor of a class is among the arguments of an operator."""
    return bool(tensors_in(value, kind))


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to the arguments or results of an operator; PyTorch's `tree_map` takes ten times as long."""
    match value:
        case Mapping():
            return {name: mapped(function, one) for name, one in value.items()}
        case list() | tuple():
            return type(value)([mapped(function, one) for one in value])
        case _:
            return function(value)


def placed(held: Any, device: torch.device | str | int) -> Any:
    """Put a tensor in host memory onto a device without counting a copy; other values are returned as they are."""
    place = device_of(device)
    if not isinstance(held, Tensor) or place.type != "cuda":
        return held
    return PretendTensor(held, place)


def bare(value: Any) -> Any:
    """Return the numbers of a tensor, in host memory; other values are returned as they are."""
    return value.held if isinstance(value, PretendTensor) else value


def place_of(tensor: Tensor) -> torch.device:
    """Return the device of a tensor, also inside an operator, where `Tensor.device` is what C++ code believes."""
    return tensor.place if isinstance(tensor, PretendTensor) else tensor.device


def device_of(device: torch.device | str | int) -> torch.device:
    """Return a device with its index."""
    device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return torch.device("cuda", 0) if device.type == "cuda" and device.index is None else device


def moved(source: Tensor, device: torch.device, dtype: torch.dtype, copy: bool = False, waits: bool = True) -> Tensor:
    """Do what `Tensor.to` does."""
    if device == place_of(source) and dtype == source.dtype and not copy:
        return source
    if device == place_of(source) == CPU:
        return source.to(dtype=dtype, copy=copy)
    RUNNING.devices.append(None)
    try:
        return _Move.apply(source, device, dtype, waits)  # type: ignore[no-untyped-call, no-any-return]
    finally:
        RUNNING.devices.pop()


def arguments_of_to(
    args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Tensor, torch.device, torch.dtype, bool, bool]:
    """Read the arguments of `Tensor.to`: the tensor, device, dtype, whether to copy, whether the host waits."""
    source, device, dtype = args[0], kwargs.get("device"), kwargs.get("dtype")
    for value in args[1:]:
        if isinstance(value, Tensor):
            device, dtype = place_of(value), value.dtype
        elif isinstance(value, torch.dtype):
            dtype = value
        elif not isinstance(value, bool) and value is not None:
            device = value
    if isinstance(kwargs.get("other"), Tensor):
        device, dtype = place_of(kwargs["other"]), kwargs["other"].dtype
    place = place_of(source) if device is None else device_of(device)
    flags = [value for value in args[1:] if isinstance(value, bool)]
    waits = not kwargs.get("non_blocking", bool(flags) and flags[0])
    return source, place, dtype or source.dtype, kwargs.get("copy", len(flags) > 1 and flags[1]), waits


class _Move(torch.autograd.Function):
    """A copy to another device or dtype; its gradient goes back."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, device: torch.device, dtype: torch.dtype, waits: bool) -> Tensor:
        ctx.source = place_of(source), source.dtype
        return _crossed(source.detach(), device, dtype, waits)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        device, dtype = ctx.source
        return _crossed(gradient, device, dtype, True), None, None, None


def _crossed(source: Tensor, device: torch.device, dtype: torch.dtype, waits: bool) -> Tensor:
    held = bare(source).to(dtype=dtype, copy=True)
    _count_copy(place_of(source), device, held.nbytes, waits)
    if place_of(source) == device:
        Current.counts.launches["_to_copy"] += 1
        Current.counts.moved_bytes += bare(source).nbytes + held.nbytes
    return placed(held, device)  # type: ignore[no-any-return]


def _copied_into(destination: Tensor, source: Tensor, *, waits: bool) -> Tensor:
    bare(destination).copy_(bare(source))
    _count_copy(place_of(source), place_of(destination), bare(source).nbytes, waits)
    if place_of(source) == place_of(destination):
        Current.counts.launches["copy_"] += 1
        Current.counts.moved_bytes += bare(source).nbytes + bare(destination).nbytes
    return destination


def _count_copy(source: torch.device, destination: torch.device, size: int, waits: bool) -> None:
    if source == destination:
        return
    if source.type == destination.type:
        Current.counts.copied_bytes["between devices"] += size
        return
    direction = "to device" if destination.type == "cuda" else "to host"
    Current.counts.copied_bytes[direction] += size
    if waits:
        Current.counts.synchronisations[f"copy {direction}"] += 1


def _count(name: str, args: tuple[Any, ...], tensors: list[Tensor], result: object) -> None:
    reason = rules.why_host_waits(name, args)
    if reason is not None:
        Current.counts.synchronisations[reason] += 1
    if name in rules.NO_KERNEL:
        return
    made = [one.nbytes for one in tensors_in(result, Tensor)]
    if Current.largest is not None and max(made, default=0) > Current.largest:
        raise Current.full
    Current.counts.launches[name] += 1
    Current.counts.moved_bytes += sum(one.nbytes for one in tensors) + sum(made)
    Current.counts.largest_bytes = max(Current.counts.largest_bytes, *made, 0)


def _refuse_numpy(tensor: PretendTensor, *_: object) -> None:
    raise TypeError(f"can't convert a tensor on {tensor.place} to numpy: use Tensor.cpu() first")


def _listed(tensor: PretendTensor) -> list[Any]:
    Current.counts.synchronisations["tolist"] += 1
    return tensor.held.tolist()


_ATTRIBUTES: dict[object, Callable[..., Any]] = {
    torch.Tensor.device.__get__: lambda one: one.place,  # type: ignore[attr-defined]
    torch.Tensor.is_cuda.__get__: lambda one: True,  # type: ignore[attr-defined]
    torch.Tensor.is_cpu.__get__: lambda one: False,  # type: ignore[attr-defined]
    torch.Tensor.get_device: lambda one: one.place.index,
    torch.Tensor.data_ptr: lambda one: one.held.data_ptr(),
    torch.Tensor.untyped_storage: lambda one: one.held.untyped_storage(),
    torch.Tensor.numpy: _refuse_numpy,
    torch.Tensor.__array__: _refuse_numpy,
    torch.Tensor.tolist: _listed,
    torch.Tensor.__format__: lambda one, form: format(one.item() if one.ndim == 0 else repr(one), form),
    torch.Tensor.pin_memory: lambda one: one,
}
_MOVES: dict[object, Callable[..., Any]] = {
    torch.Tensor.to: arguments_of_to,
    torch.Tensor.cpu: lambda args, kwargs: arguments_of_to((args[0], "cpu"), kwargs),
    torch.Tensor.cuda: lambda args, kwargs: arguments_of_to((args[0], *(args[1:] or ("cuda",))), kwargs),
}
